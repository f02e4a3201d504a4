#include "options.h"

#include <string.h>

#include "reasons.h"
#include "text.h"

static bool set(struct options *options, char letter, char *value)
{
    switch (letter) {
    case 't':
        return text_parse(value, &options->timeout_ms);
    case 'm':
        return text_parse(value, &options->memory_mib);
    case 'r':
        options->record_as = value;
        return true;
    case 'w':
        options->wait_name = value;
        return true;
    default: /* 'M': collected at the front of the array, over words that were read before */
        options->main_names[options->main_count++] = value;
        return true;
    }
}

bool options_parse(struct options *options, const char *allowed, char **words)
{
    options->main_names = words;
    for (; *words; words += 2) {
        if (!strcmp(*words, "--")) {
            options->command = words[1] ? words + 1 : NULL;
            return true;
        }
        const char *word = *words;
        bool known = word[0] == '-' && word[1] && !word[2] && strchr(allowed, word[1]);
        if (!known || !words[1] || !set(options, word[1], words[1])) {
            say(INTERNAL_ERROR, " cannot understand ", word, " on the gate's command line", (char *)NULL);
            return false;
        }
    }
    return true;
}
