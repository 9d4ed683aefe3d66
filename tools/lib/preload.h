/* What the libraries that tools/crash preloads into a process share: whose calls they look at. */
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static inline const char *setting(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

/* Whether a path lies below REELKV_FAULT_FOLDER, or is it. */
static inline int is_in_folder(const char *path) {
    const char *folder = setting("REELKV_FAULT_FOLDER");
    return *folder && strncmp(path, folder, strlen(folder)) == 0;
}

/* The path that an open file goes by; 0 where it cannot be told. */
static inline int path_of(int file, char path[PATH_MAX]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return 1;
}

static inline int is_of_folder(int file) {
    char path[PATH_MAX];
    return path_of(file, path) && is_in_folder(path);
}
