#include "options.h"

#include <string.h>

#include "reasons.h"
#include "text.h"

static bool set(struct options *options, char letter, char *value)
{
    switch (letter) {
    case 't':
        return text_parse(value, &options->timeout_ms);
    case 'c':
        return text_parse(value, &options->check_ms);
    case 'm':
        return text_parse(value, &options->memory_mib);
    case 'r':
        options->record_as = value;
        return true;
    default: /* a container that is awaited: read where it stands */
        return true;
    }
}

bool options_parse(struct options *options, const char *allowed, char **words)
{
    options->awaited = words;
    for (; *words; words += 2) {
        if (!strcmp(*words, "--")) {
            options->command = words[1] ? words + 1 : NULL;
            return true;
        }
        const char *word = *words;
        bool known = word[0] == '-' && word[1] && !word[2] && strchr(allowed, word[1]);
        if (!known || !words[1] || !set(options, word[1], words[1])) {
            say(INTERNAL_ERROR, " cannot understand ", word, " on the entrypoint's command line",
                (char *)NULL);
            return false;
        }
    }
    return true;
}
