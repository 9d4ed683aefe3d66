// The loops for any processor: SSE2 on x86-64, NEON on aarch64, which both have as a matter of course.

#include "kernels.h"

#include <math.h>
#include <string.h>

#define KV_BUILD kv_loops_portable
#include "loops/table.h"
