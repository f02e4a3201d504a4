#include "child.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "names.h"
#include "text.h"
#include "wait.h"

static const char TIMEOUT_VARIABLE[] = ENV_TIMEOUT_MS "=";

int become(char *const *command)
{
    execvp(command[0], command);
    int error = errno;
    say_plain("cannot run ", command[0], ": ", strerror(error), (char *)NULL);
    return error == ENOENT || error == ENOTDIR ? 127 : 126;
}

pid_t child_fork(enum group group)
{
    signal(SIGCHLD, SIG_DFL); /* ignored, as a parent may leave it, no child would leave an exit code */
    pid_t parent = getpid(), pid = fork();
    if (pid > 0 && group == OWN_GROUP)
        setpgid(pid, pid); /* here and in the child: whoever comes first */
    if (pid != 0)
        return pid;
    if (group == OWN_GROUP)
        setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) /* it died before the line above */
        _exit(128 + SIGKILL);
    signals_release();
    return 0;
}

bool child_ended(pid_t pid, int *code)
{
    bool found = false;
    for (;;) {
        int status;
        pid_t ended = waitpid(-1, &status, WNOHANG);
        if (ended <= 0 && !(ended < 0 && errno == EINTR))
            return found;
        if (ended == pid) {
            *code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
            found = true;
        }
    }
}

static void limit(int resource, rlim_t value)
{
    struct rlimit limits;
    if (getrlimit(resource, &limits) != 0)
        return;
    limits.rlim_cur = value < limits.rlim_max ? value : limits.rlim_max;
    limits.rlim_max = limits.rlim_cur;
    setrlimit(resource, &limits);
}

static size_t count(char *const *words)
{
    size_t number = 0;
    while (words[number])
        number++;
    return number;
}

static int become_work(const struct work *work)
{
    /* What is allocated, and not the address space: that holds every library, used or not. */
    if (work->memory_mib)
        limit(RLIMIT_DATA, (rlim_t)work->memory_mib << 20);
    limit(RLIMIT_CORE, 0);

    size_t words = count(work->command), variables = count(environ);
    char *command[words + 2], *environment[variables + 2], timeout[64];
    memcpy(command, work->command, words * sizeof *command);
    command[words] = (char *)work->verb;
    command[words + 1] = NULL;

    size_t kept = 0;
    for (size_t i = 0; i < variables; i++)
        if (strncmp(environ[i], TIMEOUT_VARIABLE, sizeof TIMEOUT_VARIABLE - 1))
            environment[kept++] = environ[i];
    text_join(timeout, sizeof timeout, TIMEOUT_VARIABLE, text_number(work->timeout_ms).text, (char *)NULL);
    environment[kept++] = timeout;
    environment[kept] = NULL;
    environ = environment;
    return become(command);
}

struct outcome work_run(const struct work *work)
{
    struct outcome outcome = {.ending = WORK_ENDED};
    long until = now_ms() + work->timeout_ms;
    pid_t pid = child_fork(OWN_GROUP);
    if (pid < 0)
        return (struct outcome){.ending = WORK_NOT_STARTED, .code = errno};
    if (pid == 0)
        _exit(become_work(work));

    while (!child_ended(pid, &outcome.code)) {
        wait_for_news(-1, until);
        enum ending ending = now_ms() >= until ? WORK_TIMED_OUT : WORK_ENDED;
        for (struct signalfd_siginfo signal; signals_next(&signal);)
            if (signal_asks(&signal) > outcome.asked)
                outcome.asked = signal_asks(&signal);
        if (work->heeds && outcome.asked >= work->heeds)
            ending = WORK_STOPPED;
        if (ending != WORK_ENDED && outcome.ending == WORK_ENDED) {
            outcome.ending = ending;
            kill(-pid, SIGKILL);
            until = LONG_MAX; /* a killed child ends */
        }
    }
    return outcome;
}

void outcome_say(const struct outcome *outcome, const char *reason, const char *verb)
{
    switch (outcome->ending) {
    case WORK_ENDED:
        say(reason, " the ", verb, " ended with exit code ", text_number(outcome->code).text, (char *)NULL);
        break;
    case WORK_TIMED_OUT:
        say(reason, " the ", verb, " took too long and was killed", (char *)NULL);
        break;
    case WORK_STOPPED:
        say(reason, " the ", verb, " was killed: this Pod is being stopped", (char *)NULL);
        break;
    case WORK_NOT_STARTED:
        say(reason, " the ", verb, " could not be started: ", strerror(outcome->code), (char *)NULL);
        break;
    }
}
