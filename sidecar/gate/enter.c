#include "enter.h"

#include "child.h"
#include "decide.h"
#include "reasons.h"
#include "record.h"
#include "text.h"

int enter(const struct options *options)
{
    int stopped_by;
    if (decide(options->shared_dir, &stopped_by) == WORD_HIT) {
        say(HIT, " the step was answered from the cache; ", options->command[0], " does not run",
            (char *)NULL);
        return 0;
    }
    if (stopped_by) {
        say(STOPPED, " told to stop before ", options->command[0], " was started", (char *)NULL);
        return 128 + stopped_by;
    }
    if (options->record_as)
        return record(options->shared_dir, options->record_as, options->command);
    return become(options->command);
}
