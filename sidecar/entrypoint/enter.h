/* `entrypoint -- COMMAND…`: in front of a command. */
#ifndef STEPMEMO_ENTER_H
#define STEPMEMO_ENTER_H

#include "options.h"

/* The exit code, where the command did not take this process over. */
int enter(const struct options *options);

#endif
