#include "enter.h"

#include <signal.h>

#include "child.h"
#include "decide.h"
#include "reasons.h"
#include "record.h"
#include "text.h"

int enter(const struct options *options)
{
    int stopped_by;
    if (decide(options->shared_dir, options->timeout_ms, &stopped_by) == WORD_HIT) {
        say(HIT, " the step was answered from the cache; ", options->command[0], " does not run",
            (char *)NULL);
        return 0;
    }
    if (stopped_by) {
        say(STOPPED, " told to stop before ", options->command[0], " was started", (char *)NULL);
        if (options->record_as)
            record_end(options->shared_dir, options->record_as, 128 + stopped_by, true);
        return 128 + stopped_by;
    }
    /* The sidecar's restart rule keeps a Pod alive whose sandbox is gone: the kubelet makes another one and
    starts
     * every container again. Without the rule the step would have failed. */
    if (options->timeout_ms && options->record_as && record_begun(options->shared_dir, options->record_as)) {
        say(STEP_FAILED, " ", options->record_as, " ran in this Pod before and does not run again", (char *)NULL);
        return 128 + SIGKILL;
    }
    if (options->record_as)
        return record(options->shared_dir, options->record_as, options->command);
    return become(options->command);
}
