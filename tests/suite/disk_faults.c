// Preloaded into hakaru: system calls on segments of the journal that fail as the environment says.
//   FAIL_A_WRITE=PATH   as long as the file PATH is there, the next write is done, reported as failed, and PATH removed
//   UNREADABLE=OFFSET   a read that touches a byte from OFFSET on of any segment fails, as long as the file
//   UNREADABLE_WHILE=PATH is there
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_segment(int fd) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return strstr(path, ".segment") != NULL;
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
  static ssize_t (*real)(int, const void *, size_t, off64_t);
  if (!real) real = dlsym(RTLD_NEXT, "pwrite64");
  ssize_t written = real(fd, bytes, count, offset);
  const char *trigger = getenv("FAIL_A_WRITE");
  if (trigger && is_segment(fd) && unlink(trigger) == 0) {
    errno = EIO;
    return -1;
  }
  return written;
}

ssize_t pread64(int fd, void *bytes, size_t count, off64_t offset) {
  static ssize_t (*real)(int, void *, size_t, off64_t);
  if (!real) real = dlsym(RTLD_NEXT, "pread64");
  const char *unreadable = getenv("UNREADABLE");
  if (unreadable && is_segment(fd)) {
    off64_t bad = atoll(unreadable);
    const char *path = getenv("UNREADABLE_WHILE");
    if (bad < offset + (off64_t)count && path && access(path, F_OK) == 0) {
      errno = EIO;
      return -1;
    }
  }
  return real(fd, bytes, count, offset);
}
