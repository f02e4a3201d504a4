/* `entrypoint check`: the init container. */
#ifndef STEPMEMO_CHECK_H
#define STEPMEMO_CHECK_H

#include "options.h"

void check(struct options *options);

#endif
