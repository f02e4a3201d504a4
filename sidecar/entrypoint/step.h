/* How far the step is, as the entrypoints of its containers tell. */
#ifndef STEPMEMO_STEP_H
#define STEPMEMO_STEP_H

#include "decide.h"
#include "options.h"

/*
 * How a container ended, by what its entrypoint recorded; of several, the greatest counts. ABSENT: it has not
 * come, or could not leave a trace. A sidecar also succeeds when it was ended by a signal, as Argo ends
 * sidecars.
 */
enum ended { SUCCEEDED, RUNNING, ABSENT, KILLED, FAILED };

struct step {
    enum word word;
    enum ended mains;
    enum ended waiter; /* `wait` or `supervisor`; SUCCEEDED where there is none */
    enum ended sidecars;
};

/* Is there any main container to wait for? */
bool step_has_mains(const struct options *options);

struct step step_look(const struct options *options);

#endif
