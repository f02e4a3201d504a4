/* How far the step is, as the files of its containers tell. */
#ifndef STEPMEMO_STEP_H
#define STEPMEMO_STEP_H

#include "decide.h"
#include "options.h"

/* The main containers together. A main container that was killed with its emissary never says so: it is
 * RUNNING. */
enum mains { MAINS_RUNNING, MAINS_FAILED, MAINS_SUCCEEDED };

/* `wait` or `supervisor`; ABSENT: it has not come, or could not leave a trace. */
enum waiter { WAITER_NONE, WAITER_ABSENT, WAITER_RUNNING, WAITER_FAILED, WAITER_SUCCEEDED, WAITER_KILLED };

struct step {
    enum word word;
    enum mains mains;
    enum waiter waiter;
};

struct step step_look(const struct options *options);

/* Watches every directory that step_look reads. False when news may be missed. */
bool step_watch(int watch, const struct options *options);

#endif
