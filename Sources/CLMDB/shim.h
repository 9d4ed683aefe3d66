#include <fcntl.h>
#include <lmdb.h>
#include <sys/types.h>
#include <unistd.h>

#ifdef __linux__
/// `fallocate` with `FALLOC_FL_KEEP_SIZE`: gives the first `length` bytes of a file room on the device. Linux has the function
/// beyond POSIX, and Swift does not see it.
static inline int clmdb_reserve_space(int descriptor, off_t length) {
    extern int fallocate(int, int, off_t, off_t);
    return fallocate(descriptor, 0x01, 0, length);
}
#endif

/// The process that has the lock file to itself while it opens a file that nobody else has open (`mdb_env_excl_lock`); 0 if there is none.
static inline pid_t clmdb_exclusive_holder(int lock_file) {
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
    return fcntl(lock_file, F_GETLK, &lock) == 0 && lock.l_type == F_WRLCK ? lock.l_pid : 0;
}
