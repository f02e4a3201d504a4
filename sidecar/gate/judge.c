#include "judge.h"

#include "reasons.h"

enum {
    LATE_WAITER_MS = 10000,   /* `wait` starts before the main containers: it never came, then */
    LONGEST_WAIT_MS = 3600000 /* there is a cap on everything */
};

static struct verdict leave(const char *reason, const char *text)
{
    return (struct verdict){LEAVE, reason, text};
}

struct verdict judge(const struct step *step, long ended_ms_ago, enum asked asked)
{
    if (step->word == WORD_HIT)
        return leave(HIT, "the step was answered from the cache");
    if (step->mains == MAINS_FAILED)
        return leave(STEP_FAILED, "a main container did not end with 0");
    if (step->waiter == WAITER_FAILED)
        return leave(OUTPUTS_FAILED, "the container that saves the outputs did not end with 0");
    if (step->waiter == WAITER_KILLED)
        return leave(OUTPUTS_FAILED, "the container that saves the outputs was killed");
    if (asked == ASKED_BY_RUNTIME)
        return leave(STOPPED, "this Pod is being stopped");
    /* Argo asks once it has seen them end, or to end them: one without an exit code by then was killed. */
    if (step->mains == MAINS_RUNNING && asked == ASKED_BY_ARGO)
        return leave(STEP_FAILED, "a main container was killed or is being stopped");
    if (step->mains == MAINS_RUNNING)
        return (struct verdict){.act = STAY};
    if (step->waiter == WAITER_SUCCEEDED || step->waiter == WAITER_NONE)
        return (struct verdict){.act = STORE};
    if (step->waiter == WAITER_ABSENT && ended_ms_ago >= LATE_WAITER_MS)
        return leave(OUTPUTS_FAILED, "the container that saves the outputs never came");
    if (ended_ms_ago >= LONGEST_WAIT_MS)
        return leave(OUTPUTS_FAILED, "the container that saves the outputs takes too long");
    return (struct verdict){.act = STAY};
}
