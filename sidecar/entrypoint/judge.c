#include "judge.h"

#include "reasons.h"

enum {
    LATE_MS = 10000,          /* the others start with the main containers: one never came, then */
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
    if (step->mains == FAILED)
        return leave(STEP_FAILED, "a main container did not end with 0, or was told to stop");
    if (step->mains == KILLED)
        return leave(STEP_FAILED, "a main container was killed");
    if (step->sidecars == FAILED)
        return leave(STEP_FAILED, "a sidecar of the step did not end with 0");
    if (step->waiter == FAILED)
        return leave(OUTPUTS_FAILED, "the container that saves the outputs did not end with 0");
    if (step->waiter == KILLED)
        return leave(OUTPUTS_FAILED, "the container that saves the outputs was killed");
    if (asked == ASKED_BY_RUNTIME)
        return leave(STOPPED, "this Pod is being stopped");
    /* Argo asks once it has seen them end, or to end them: one that left no exit code by then never will. */
    if (step->mains != SUCCEEDED && asked == ASKED_BY_ARGO)
        return leave(STEP_FAILED, "a main container was killed or is being stopped");
    if (step->mains != SUCCEEDED)
        return (struct verdict){.act = STAY};
    if (step->waiter == SUCCEEDED && step->sidecars == SUCCEEDED)
        return (struct verdict){.act = STORE};
    if ((step->waiter == ABSENT || step->sidecars == ABSENT) && ended_ms_ago >= LATE_MS)
        return leave(OUTPUTS_FAILED, "a container of the step never came, or could not record its end");
    if (ended_ms_ago >= LONGEST_WAIT_MS)
        return leave(OUTPUTS_FAILED, "the containers beside main take too long");
    return (struct verdict){.act = STAY};
}
