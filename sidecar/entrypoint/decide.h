/*
 * One word per Pod: `hit` (the step was answered from the cache) or `run`.
 *
 * Whoever creates the file `claim` owns the word and writes it to `decision`. The checker claims before it
 * posts anything; so an entrypoint that wins the claim knows that nothing was posted and nothing will be, and
 * a claim without a decision means that something may have been: only who can retract it may then say `run`.
 */
#ifndef STEPMEMO_DECIDE_H
#define STEPMEMO_DECIDE_H

#include <stdbool.h>

enum word { NO_WORD, WORD_HIT, WORD_RUN };

/* The word, if there is one. */
enum word decision_read(const char *directory);

enum claim { CLAIM_WON, CLAIM_LOST, CLAIM_BROKEN };
/* Tries to take the claim; BROKEN when the directory cannot be used, which has been said. */
enum claim claim_take(const char *directory);

/* Writes `run`; a failure is said. The first word stands: returns the one that does. For the owner of the
 * claim, and for who has waited in vain for one. */
enum word decide_run(const char *directory);

/* The word for a command about to start: waits for one as long as `patience_ms`, then takes the claim, or
 * waits for its owner where somebody else has it. Never NO_WORD: files that cannot be read or written mean
 * `run`. A signal that asked us to stop while we waited stands in `*stopped_by`, else 0. */
enum word decide(const char *directory, long patience_ms, int *stopped_by);

#endif
