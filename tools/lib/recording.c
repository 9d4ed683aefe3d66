/* Records every change to the files of one folder, in order: preloaded into a process by `reelkv-crash torn`.
 *
 * REELKV_FAULT_FOLDER   whose files
 * REELKV_RECORDING      the file that records are appended to; it lies outside of the folder
 *
 * A record is a struct record and then its bytes. One lock is held over a call and its record, so the order of the records is that of the
 * calls. What the process writes to its standard output is recorded too: by it what was acknowledged has its place in the order.
 * Files are told by their number. A change that cannot be recorded (a file mapped to be written, a range copied by the kernel) ends the
 * process with status 99: what would be rebuilt from such a recording would not be what was there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "preload.h"

enum kind { SAID = 1, MADE, FOLDER_MADE, WRITTEN, FLUSHED, RESIZED, RENAMED, LINKED, REMOVED };

struct record {
    uint32_t kind;
    uint32_t is_durable;    /* of a write: on the disk when the call returned */
    uint64_t file;          /* its number; of a folder that was flushed, 0 */
    uint64_t offset;        /* of a write; the new length, where that has changed */
    uint64_t first_length;  /* bytes of a path, or of what was written */
    uint64_t second_length; /* of another path */
};

static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;

static void give_up(const char *what) {
    dprintf(STDERR_FILENO, "a change that cannot be recorded: %s\n", what);
    _exit(99);
}

static int recording(void) {
    static int file = -1;
    if (file < 0) file = NEXT(open)(setting("REELKV_RECORDING"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (file < 0) give_up("no REELKV_RECORDING");
    return file;
}

static void record(struct record record, const void *first, const void *second) {
    int saved = errno;
    struct iovec parts[] = {
        {&record, sizeof record}, {(void *)first, record.first_length}, {(void *)second, record.second_length}};
    ssize_t length = (ssize_t)(sizeof record + record.first_length + record.second_length);
    if (NEXT(writev)(recording(), parts, 3) != length) give_up("REELKV_RECORDING takes no more");
    errno = saved;
}

static void record_names(enum kind kind, uint64_t file, const char *path, const char *other) {
    record((struct record){.kind = kind, .file = file, .first_length = strlen(path), .second_length = other ? strlen(other) : 0},
           path, other);
}

static struct stat status_of(int file) {
    struct stat status;
    if (fstat(file, &status) != 0) give_up("a file that cannot be looked at");
    return status;
}

/* A path whose folder may be given apart. */
static int whole_path(int folder, const char *path, char whole[PATH_MAX]) {
    char start[PATH_MAX];
    if (path[0] == '/' || folder == AT_FDCWD) return snprintf(whole, PATH_MAX, "%s", path) < PATH_MAX;
    return path_of(folder, start) && snprintf(whole, PATH_MAX, "%s/%s", start, path) < PATH_MAX;
}

/* ---- Content */

static void record_write(int file, const void *bytes, ssize_t count, uint64_t offset) {
    if (count <= 0) return;
    uint32_t is_durable = (fcntl(file, F_GETFL) & O_DSYNC) != 0;
    record((struct record){.kind = WRITTEN, .is_durable = is_durable, .file = status_of(file).st_ino, .offset = offset,
                           .first_length = (uint64_t)count}, bytes, NULL);
}

/* Where a write began that went on from the last one. */
static uint64_t start_of_written(int file, ssize_t count) { return (uint64_t)(lseek(file, 0, SEEK_CUR) - count); }

ssize_t pwrite(int file, const void *bytes, size_t count, off_t offset) {
    if (!is_of_folder(file)) return NEXT(pwrite)(file, bytes, count, offset);
    pthread_mutex_lock(&order);
    ssize_t result = NEXT(pwrite)(file, bytes, count, offset);
    record_write(file, bytes, result, (uint64_t)offset);
    pthread_mutex_unlock(&order);
    return result;
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off_t offset) { return pwrite(file, bytes, count, offset); }

/* Each part is a page of LMDB's: by itself, as far as a crash is concerned. */
static void record_parts(int file, const struct iovec *parts, int count, ssize_t left, uint64_t offset) {
    for (int part = 0; part < count && left > 0; part++) {
        ssize_t length = left < (ssize_t)parts[part].iov_len ? left : (ssize_t)parts[part].iov_len;
        record_write(file, parts[part].iov_base, length, offset);
        left -= length;
        offset += (uint64_t)length;
    }
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    if (!is_of_folder(file)) return NEXT(writev)(file, parts, count);
    pthread_mutex_lock(&order);
    ssize_t result = NEXT(writev)(file, parts, count);
    if (result > 0) record_parts(file, parts, count, result, start_of_written(file, result));
    pthread_mutex_unlock(&order);
    return result;
}

ssize_t pwritev(int file, const struct iovec *parts, int count, off_t offset) {
    if (!is_of_folder(file)) return NEXT(pwritev)(file, parts, count, offset);
    pthread_mutex_lock(&order);
    ssize_t result = NEXT(pwritev)(file, parts, count, offset);
    record_parts(file, parts, count, result, (uint64_t)offset);
    pthread_mutex_unlock(&order);
    return result;
}

ssize_t pwritev64(int file, const struct iovec *parts, int count, off_t offset) { return pwritev(file, parts, count, offset); }

ssize_t write(int file, const void *bytes, size_t count) {
    int is_said = file == STDOUT_FILENO;
    if (!is_said && !is_of_folder(file)) return NEXT(write)(file, bytes, count);
    pthread_mutex_lock(&order);
    ssize_t result = NEXT(write)(file, bytes, count);
    if (is_said && result > 0) {
        record((struct record){.kind = SAID, .first_length = (uint64_t)result}, bytes, NULL);
    } else if (result > 0) {
        record_write(file, bytes, result, start_of_written(file, result));
    }
    pthread_mutex_unlock(&order);
    return result;
}

static void record_length(int file) {
    struct stat status = status_of(file);
    record((struct record){.kind = RESIZED, .file = status.st_ino, .offset = (uint64_t)status.st_size}, NULL, NULL);
}

int ftruncate(int file, off_t size) {
    if (!is_of_folder(file)) return NEXT(ftruncate)(file, size);
    pthread_mutex_lock(&order);
    int result = NEXT(ftruncate)(file, size);
    if (result == 0) record_length(file);
    pthread_mutex_unlock(&order);
    return result;
}

int ftruncate64(int file, off_t size) { return ftruncate(file, size); }

int fallocate(int file, int mode, off_t offset, off_t size) {
    if (!is_of_folder(file)) return NEXT(fallocate)(file, mode, offset, size);
    if (mode & ~FALLOC_FL_KEEP_SIZE) give_up("fallocate that changes content");
    pthread_mutex_lock(&order);
    int result = NEXT(fallocate)(file, mode, offset, size);
    if (result == 0 && !(mode & FALLOC_FL_KEEP_SIZE)) record_length(file);
    pthread_mutex_unlock(&order);
    return result;
}

int fallocate64(int file, int mode, off_t offset, off_t size) { return fallocate(file, mode, offset, size); }

static int flush(int file, int (*call)(int)) {
    char path[PATH_MAX];
    if (!path_of(file, path) || !is_in_folder(path)) return call(file);
    pthread_mutex_lock(&order);
    int result = call(file);
    if (result == 0) {
        struct stat status = status_of(file);
        record_names(FLUSHED, S_ISDIR(status.st_mode) ? 0 : status.st_ino, path, NULL);
    }
    pthread_mutex_unlock(&order);
    return result;
}

int fsync(int file) { return flush(file, NEXT(fsync)); }

int fdatasync(int file) { return flush(file, NEXT(fdatasync)); }

/* ---- Names */

int openat(int folder, const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    char whole[PATH_MAX];
    if (!(flags & (O_CREAT | O_TRUNC)) || !whole_path(folder, path, whole) || !is_in_folder(whole))
        return NEXT(openat)(folder, path, flags, mode);
    pthread_mutex_lock(&order);
    struct stat status;
    int is_new = lstat(whole, &status) != 0;
    int file = NEXT(openat)(folder, path, flags, mode);
    if (file >= 0 && is_new) record_names(MADE, status_of(file).st_ino, whole, NULL);
    if (file >= 0 && !is_new && flags & O_TRUNC && status.st_size > 0) record_length(file);
    pthread_mutex_unlock(&order);
    return file;
}

int openat64(int folder, const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return openat(folder, path, flags, mode);
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return openat(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return openat(AT_FDCWD, path, flags, mode);
}

int mkdir(const char *path, mode_t mode) {
    if (!is_in_folder(path)) return NEXT(mkdir)(path, mode);
    pthread_mutex_lock(&order);
    int result = NEXT(mkdir)(path, mode);
    if (result == 0) record_names(FOLDER_MADE, 0, path, NULL);
    pthread_mutex_unlock(&order);
    return result;
}

int renameat(int folder, const char *from, int other, const char *to) {
    char old[PATH_MAX], new[PATH_MAX];
    if (!whole_path(folder, from, old) || !whole_path(other, to, new) || !is_in_folder(old))
        return NEXT(renameat)(folder, from, other, to);
    pthread_mutex_lock(&order);
    int result = NEXT(renameat)(folder, from, other, to);
    if (result == 0) record_names(RENAMED, 0, old, new);
    pthread_mutex_unlock(&order);
    return result;
}

int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }

int link(const char *from, const char *to) {
    if (!is_in_folder(to)) return NEXT(link)(from, to);
    pthread_mutex_lock(&order);
    int result = NEXT(link)(from, to);
    if (result == 0) record_names(LINKED, 0, from, to);
    pthread_mutex_unlock(&order);
    return result;
}

int unlinkat(int folder, const char *path, int flags) {
    char whole[PATH_MAX];
    if (!whole_path(folder, path, whole) || !is_in_folder(whole)) return NEXT(unlinkat)(folder, path, flags);
    pthread_mutex_lock(&order);
    int result = NEXT(unlinkat)(folder, path, flags);
    if (result == 0) record_names(REMOVED, 0, whole, NULL);
    pthread_mutex_unlock(&order);
    return result;
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

/* ---- What cannot be recorded */

void *mmap(void *address, size_t length, int protection, int flags, int file, off_t offset) {
    char path[PATH_MAX];
    /* Lock files are written through maps. They say nothing of what is on the disk, and are made up when a folder is rebuilt. */
    if (file >= 0 && protection & PROT_WRITE && flags & MAP_SHARED && path_of(file, path) && is_in_folder(path) &&
        !(strlen(path) > 5 && strcmp(path + strlen(path) - 5, "-lock") == 0))
        give_up("a file is mapped to be written");
    return NEXT(mmap)(address, length, protection, flags, file, offset);
}

void *mmap64(void *address, size_t length, int protection, int flags, int file, off_t offset) {
    return mmap(address, length, protection, flags, file, offset);
}

ssize_t copy_file_range(int from, off_t *start, int to, off_t *target, size_t count, unsigned flags) {
    if (is_of_folder(to)) give_up("copy_file_range");
    return NEXT(copy_file_range)(from, start, to, target, count, flags);
}
