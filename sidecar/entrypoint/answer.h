/*
 * Looking the key up, as the parent of Python: whatever becomes of the check, a word is there in the end, and
 * `run` only after what may have been posted was taken back.
 */
#ifndef STEPMEMO_ANSWER_H
#define STEPMEMO_ANSWER_H

#include "options.h"
#include "signals.h"

/* Runs `COMMAND… check` for `timeout_ms` at most; it leaves a word, or it does not. Who asks us to stop ends
 * it. Signals are held. Returns who asked. */
enum asked look_up(const struct options *options, long timeout_ms);

/* Leaves a word where there is none: takes the claim, and where it is taken, by a check that may have posted
 * something, runs `COMMAND… retract` before it writes `run`. Without a command nothing can have been posted.
 * The retraction heeds no signal, it is short. Returns who asked us to stop meanwhile. */
enum asked settle(const struct options *options, long timeout_ms);

#endif
