/* What the sidecar does, as a pure function of what it knows. */
#ifndef STEPMEMO_JUDGE_H
#define STEPMEMO_JUDGE_H

#include "signals.h"
#include "step.h"

enum act { STAY, STORE, LEAVE };

struct verdict {
    enum act act;
    const char *reason, *text; /* of LEAVE */
};

/* `ended_ms_ago`: how long ago the main containers were first seen to have succeeded. */
struct verdict judge(const struct step *step, long ended_ms_ago, enum asked asked);

#endif
