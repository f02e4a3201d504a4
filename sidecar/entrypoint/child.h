/* Starting programs, and being their parent. */
#ifndef STEPMEMO_CHILD_H
#define STEPMEMO_CHILD_H

#include <stdbool.h>
#include <sys/types.h>

#include "signals.h"

/* Becomes the command, found like a container runtime finds it (a name without a slash in $PATH, no shell
 * for a script without an interpreter), in the same environment. Returns only when it cannot, with the exit
 * code that a shell gives for that: 127 not found, 126 not to be executed; the cause has been said. */
int become(char *const *command);

/* Forks. The child has no held signals and dies with this process; in a GROUP of its own it can be killed
 * with what it starts, in OURS it has the terminal, where there is one. Like fork: 0 in the child, -1 on
 * failure. */
enum group { OWN_GROUP, OUR_GROUP };
pid_t child_fork(enum group group);

/* Collects every child that ended, orphans given to PID 1 included. True when `pid` was among them; its
 * exit code, 128+n if signal n ended it, then is in `*code`. */
bool child_ended(pid_t pid, int *code);

/* A piece of work for Python. */
struct work {
    char *const *command;
    const char *verb; /* appended to the command */
    long timeout_ms;  /* it is killed then, and told so beforehand in $STEPMEMO_TIMEOUT_MS */
    long memory_mib;  /* 0: no limit */
    enum asked heeds; /* whoever of this weight asks us to stop ends the work; NOT_ASKED: nobody does */
};

struct outcome {
    enum ending { WORK_ENDED, WORK_TIMED_OUT, WORK_STOPPED, WORK_NOT_STARTED } ending;
    int code;         /* of WORK_ENDED */
    enum asked asked; /* who asked us to stop meanwhile, heeded or not */
};

/* Runs it to its end, which is bounded whatever it does. Signals are held. */
struct outcome work_run(const struct work *work);

/* Says how it ended, with `reason`. */
void outcome_say(const struct outcome *outcome, const char *reason, const char *verb);

#endif
