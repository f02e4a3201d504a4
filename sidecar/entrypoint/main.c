/*
 * The entrypoint: the one program that Kubernetes sees in a container of stepmemo's, and the one in front of
 * every command that Argo manages. Static and small, so that it needs nothing in the image; it never fails a
 * step.
 *
 *   entrypoint check [-t MS] [-m MIB] [-- COMMAND…]
 *       Init container. Puts a copy of itself where the other containers find it, then runs `COMMAND… check`
 *       for MS at most, and `COMMAND… retract` when the check died half-way. A decision is there when it
 *       ends. Without a command: puts itself in place and decides `run`. Exits 0, always.
 *
 *   entrypoint capture [-c CHECK_MS] [-t MS] [-m MIB] [-M MAIN]… [-w WAIT] [-s SIDECAR]… -- COMMAND…
 *       Sidecar. With -c it first does what `check` does, for CHECK_MS at most, beside the step's own
 *       containers, and leaves where the step was answered or no MAIN is named; started again after a kill it
 *       only sees to it that there is a decision. Waits until every container MAIN, and WAIT where it is
 *       given, ended with 0, and every SIDECAR with 0 or by a signal, as their entrypoints record
 *       (`entrypoint -r`); then runs `COMMAND… capture` for MS at most. Leaves early where there is nothing
 *       to store. Exits 0, always.
 *
 *   entrypoint --version
 *       Says which release of stepmemo it is of.
 *
 *   entrypoint [-t MS] [-r NAME] -- COMMAND…
 *       In front of a command. Waits for a decision, for MS at most (not at all unless said); where none came
 *       it decides `run`, or waits for whoever is about to decide. The step was answered from the cache:
 *       exits 0. Else becomes COMMAND, or with -r stays its parent, passes signals on, records its exit code
 *       as NAME's and exits with the same.
 *
 * MS is in milliseconds (2000 unless said otherwise). MIB limits what COMMAND allocates, in mebibytes: below
 * the container's limit, so that too much is an error in COMMAND and not an OOM kill of the whole container.
 * The files are described in memoize/names.py; $STEPMEMO_SHARED_DIR and $STEPMEMO_BIN_DIR stand in for their
 * directories where containers share one file system.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "capture.h"
#include "check.h"
#include "enter.h"
#include "names.h"
#include "options.h"
#include "text.h"

static const char *setting(const char *variable, const char *otherwise)
{
    const char *value = getenv(variable);
    return value && *value ? value : otherwise;
}

int main(int argc, char **argv)
{
    struct options options = {
        .shared_dir = setting(ENV_SHARED_DIR, SHARED_DIR),
        .bin_dir = setting(ENV_BIN_DIR, BIN_DIR),
        .timeout_ms = 2000,
    };
    const char *verb = argc > 1 ? argv[1] : "";

    if (!strcmp(verb, "check")) {
        if (!options_parse(&options, "tm", argv + 2))
            options.command = NULL; /* the step must run all the same */
        check(&options);
        return 0;
    }
    if (!strcmp(verb, "capture")) {
        if (options_parse(&options, "ctmMws", argv + 2) && options.command)
            capture(&options);
        return 0;
    }
    if (!strcmp(verb, "--version")) {
        static const char said[] = "stepmemo " VERSION "\n";
        return write(STDOUT_FILENO, said, sizeof said - 1) < 0;
    }
    options.timeout_ms = 0;
    if (argc > 1 && options_parse(&options, "tr", argv + 1) && options.command)
        return enter(&options);
    say_plain("usage: entrypoint [check|capture] [OPTIONS] -- COMMAND…", (char *)NULL);
    return 2;
}
