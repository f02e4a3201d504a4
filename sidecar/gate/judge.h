/* What the sidecar does, as a pure function of what it knows. */
#ifndef STEPMEMO_JUDGE_H
#define STEPMEMO_JUDGE_H

#include "step.h"

/*
 * Who asks us to stop. The container runtime's signal comes from outside the Pod's PID namespace, so its
 * sender has PID 0 here; Argo's comes from an `argoexec kill` inside a container. That holds with
 * shareProcessNamespace too (Argo's then hits the pause container and never us). With hostPID the runtime
 * looks like Argo, which costs at most the Pod's grace period, after main containers that succeeded.
 */
enum asked { NOT_ASKED, ASKED_BY_ARGO, ASKED_BY_RUNTIME };

enum act { STAY, STORE, LEAVE };

struct verdict {
    enum act act;
    const char *reason, *text; /* of LEAVE */
};

/* `ended_ms_ago`: how long ago the main containers were first seen to have succeeded. */
struct verdict judge(const struct step *step, long ended_ms_ago, enum asked asked);

#endif
