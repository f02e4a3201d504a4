#include "starts.h"

#include <errno.h>
#include <stdbool.h>

#include "files.h"
#include "names.h"

static bool taken(const char *directory, const char *name)
{
    return !file_make(path_in(directory, START_FILE_PREFIX, name).text) && errno == EEXIST;
}

enum start start_next(const char *directory)
{
    if (!taken(directory, "1"))
        return FIRST_START;
    return taken(directory, "2") ? LATER_START : SECOND_START;
}
