#include "check.h"

#include <errno.h>
#include <string.h>

#include "child.h"
#include "decide.h"
#include "install.h"
#include "reasons.h"
#include "signals.h"
#include "text.h"

/* A retraction that is cut off leaves a result beside a running step, so it is not hurried with the check. */
enum { LEAST_RETRACT_MS = 2000 };

static struct outcome run(const struct options *options, const char *verb, long timeout_ms)
{
    struct work work = {
        .command = options->command,
        .verb = verb,
        .timeout_ms = timeout_ms,
        .memory_mib = options->memory_mib,
        .stops = signal_asks_to_stop,
    };
    return work_run(&work);
}

static void look_up(const struct options *options)
{
    struct outcome outcome = run(options, "check", options->timeout_ms);
    if (decision_read(options->shared_dir) != NO_WORD)
        return;
    if (outcome.ending == WORK_ENDED && outcome.code == 0)
        say(UNDECIDED, " the check ended without a decision", (char *)NULL);
    else
        outcome_say(&outcome, UNDECIDED, "check");
}

static void retract(const struct options *options)
{
    bool hurried = options->timeout_ms < LEAST_RETRACT_MS;
    struct outcome outcome = run(options, "retract", hurried ? LEAST_RETRACT_MS : options->timeout_ms);
    if (outcome.ending != WORK_ENDED || outcome.code != 0)
        outcome_say(&outcome, UNDECIDED, "retract");
}

void check(const struct options *options)
{
    const char *directory = options->shared_dir;
    bool able = signals_hold() && options->command;

    if (!install(directory))
        say(INTERNAL_ERROR, " cannot put the gate into ", directory, ": ", strerror(errno), (char *)NULL);
    if (able && decision_read(directory) == NO_WORD)
        look_up(options);
    if (decision_read(directory) != NO_WORD)
        return;
    /* The check died. If it never claimed, it posted nothing; else what it may have posted must go first. */
    if (claim_take(directory) != CLAIM_WON && able)
        retract(options);
    decide_run(directory);
}
