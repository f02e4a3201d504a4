/* `entrypoint capture`: the sidecar. */
#ifndef STEPMEMO_CAPTURE_H
#define STEPMEMO_CAPTURE_H

#include "options.h"

void capture(const struct options *options);

#endif
