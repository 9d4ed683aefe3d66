/* Fails one call on the files of one folder: preloaded into a process by `reelkv-crash faults`.
 *
 * REELKV_FAULT_FOLDER   whose files; the folder's own name changes too
 * REELKV_FAULT_CALL     which call fails, counted from 1: reads, writes, flushes, changes of length, renamings, removals, and files made
 * REELKV_FAULT_ERRNO    with what; 0 for a read or write of only half. Reads fail with EIO or come to half, and are not counted for others
 * REELKV_FAULT_FIRED    a file that is made when the call has failed, with the call's name
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/uio.h>

#include "preload.h"

static atomic_long calls;

/* Whether this call is the one; then what it fails with is in errno. */
static int fails(const char *name) {
    int saved = errno;
    if (atomic_fetch_add(&calls, 1) + 1 != atol(setting("REELKV_FAULT_CALL"))) return 0;
    FILE *fired = fopen(setting("REELKV_FAULT_FIRED"), "w");
    if (fired) {
        fputs(name, fired);
        fclose(fired);
    }
    errno = atoi(setting("REELKV_FAULT_ERRNO"));
    if (errno == 0) errno = saved;
    return 1;
}

static int is_short(void) { return atoi(setting("REELKV_FAULT_ERRNO")) == 0; }

static int read_fails(int file, const char *name) {
    int with = atoi(setting("REELKV_FAULT_ERRNO"));
    return (with == EIO || with == 0) && is_of_folder(file) && fails(name);
}

ssize_t read(int file, void *bytes, size_t count) {
    if (read_fails(file, "read")) {
        if (!is_short()) return -1;
        count = (count + 1) / 2;
    }
    return NEXT(read)(file, bytes, count);
}

ssize_t pread(int file, void *bytes, size_t count, off_t offset) {
    if (read_fails(file, "pread")) {
        if (!is_short()) return -1;
        count = (count + 1) / 2;
    }
    return NEXT(pread)(file, bytes, count, offset);
}

ssize_t pread64(int file, void *bytes, size_t count, off_t offset) { return pread(file, bytes, count, offset); }

ssize_t pwrite(int file, const void *bytes, size_t count, off_t offset) {
    if (is_of_folder(file) && fails("pwrite")) {
        if (!is_short()) return -1;
        count /= 2;
    }
    return NEXT(pwrite)(file, bytes, count, offset);
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off_t offset) { return pwrite(file, bytes, count, offset); }

ssize_t pwritev(int file, const struct iovec *parts, int count, off_t offset) {
    if (is_of_folder(file) && fails("pwritev")) {
        if (!is_short()) return -1;
        struct iovec first = {parts[0].iov_base, parts[0].iov_len / 2};
        return NEXT(pwritev)(file, &first, 1, offset);
    }
    return NEXT(pwritev)(file, parts, count, offset);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    if (is_of_folder(file) && fails("writev")) {
        if (!is_short()) return -1;
        struct iovec first = {parts[0].iov_base, parts[0].iov_len / 2};
        return NEXT(writev)(file, &first, 1);
    }
    return NEXT(writev)(file, parts, count);
}

ssize_t write(int file, const void *bytes, size_t count) {
    if (is_of_folder(file) && fails("write")) {
        if (!is_short()) return -1;
        count /= 2;
    }
    return NEXT(write)(file, bytes, count);
}

int fsync(int file) { return is_of_folder(file) && fails("fsync") && !is_short() ? -1 : NEXT(fsync)(file); }

int fdatasync(int file) { return is_of_folder(file) && fails("fdatasync") && !is_short() ? -1 : NEXT(fdatasync)(file); }

int ftruncate(int file, off_t size) {
    return is_of_folder(file) && fails("ftruncate") && !is_short() ? -1 : NEXT(ftruncate)(file, size);
}

int fallocate(int file, int mode, off_t offset, off_t size) {
    return is_of_folder(file) && fails("fallocate") && !is_short() ? -1 : NEXT(fallocate)(file, mode, offset, size);
}

int rename(const char *from, const char *to) {
    return is_in_folder(from) && fails("rename") && !is_short() ? -1 : NEXT(rename)(from, to);
}

int renameat(int folder, const char *from, int other, const char *to) {
    return is_of_folder(folder) && fails("renameat") && !is_short() ? -1 : NEXT(renameat)(folder, from, other, to);
}

int unlink(const char *path) { return is_in_folder(path) && fails("unlink") && !is_short() ? -1 : NEXT(unlink)(path); }

int unlinkat(int folder, const char *path, int flags) {
    return is_of_folder(folder) && fails("unlinkat") && !is_short() ? -1 : NEXT(unlinkat)(folder, path, flags);
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    if (is_in_folder(path) && fails("open") && !is_short()) return -1;
    return NEXT(open)(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return open(path, flags, mode);
}
