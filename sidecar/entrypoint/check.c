#include "check.h"

#include <errno.h>
#include <string.h>

#include "answer.h"
#include "decide.h"
#include "install.h"
#include "reasons.h"
#include "signals.h"
#include "text.h"

void check(struct options *options)
{
    if (!signals_hold())
        options->command = NULL; /* a child's end would not be seen */
    if (!install(options->bin_dir))
        say(INTERNAL_ERROR, " cannot put the entrypoint into ", options->bin_dir, ": ", strerror(errno),
            (char *)NULL);
    if (options->command && decision_read(options->shared_dir) == NO_WORD)
        look_up(options, options->timeout_ms);
    settle(options, options->timeout_ms);
}
