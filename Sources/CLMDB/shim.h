#include <lmdb.h>
#include <sys/types.h>

#ifdef __linux__
/// `fallocate` with `FALLOC_FL_KEEP_SIZE`: gives the first `length` bytes of a file room on the device. Linux has the function
/// beyond POSIX, and Swift does not see it.
static inline int clmdb_reserve_space(int descriptor, off_t length) {
    extern int fallocate(int, int, off_t, off_t);
    return fallocate(descriptor, 0x01, 0, length);
}
#endif
