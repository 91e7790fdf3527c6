// Counts the allocations of each thread. The library is preloaded into a program (LD_PRELOAD).
//
// Each thread counts in a slot of its own, in the mapped file that ALLOCATIONS_FILE names. The file can be read at any
// time while the program runs. There are no locks and no allocations, and no two threads write to the same slot. Slots
// are never given back. Threads beyond the last slot are not counted; the first slot has the number of all threads.
//
//   cc -O2 -shared -fPIC -o allocations.so allocations.c
//
// For glibc only: the functions below are its own, under names that cannot be interposed.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t count, size_t bytes);
extern void *__libc_realloc(void *old, size_t bytes);
extern void *__libc_memalign(size_t alignment, size_t bytes);
extern void __libc_free(void *memory);

enum { SLOTS = 1024 };

// perf/allocations reads this: eight numbers of 64 bits, one cache line per thread.
struct slot {
  uint64_t thread, mallocs, callocs, reallocs, aligned, frees, bytes, spare;
};
_Static_assert(sizeof(struct slot) == 64, "a cache line");

// The first slot has no thread. Its `spare` is the number of slots taken, including those beyond the last one.
static struct slot *slots;

// For counts that are not read. Several threads may write here.
static struct slot nowhere;

// With initial-exec the first access does not allocate, as it may with other models.
static __thread __attribute__((tls_model("initial-exec"))) struct slot *mine;

__attribute__((constructor)) static void map(void) {
  const char *path = getenv("ALLOCATIONS_FILE");
  if (!path) return;
  int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0 || ftruncate(fd, SLOTS * sizeof(struct slot))) _exit(127);
  void *mapped = mmap(NULL, SLOTS * sizeof(struct slot), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (mapped == MAP_FAILED) _exit(127);
  close(fd);
  slots = mapped;
}

static struct slot *take_slot(void) {
  // Nothing is counted before the file is mapped, which is before the load.
  if (!slots) return &nowhere;
  uint64_t index = 1 + __atomic_fetch_add(&slots[0].spare, 1, __ATOMIC_RELAXED);
  mine = index < SLOTS ? &slots[index] : &nowhere;
  if (mine != &nowhere) mine->thread = gettid();
  return mine;
}

static inline struct slot *slot(void) { return mine ? mine : take_slot(); }

void *malloc(size_t bytes) {
  struct slot *counts = slot();
  counts->mallocs++;
  counts->bytes += bytes;
  return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes) {
  struct slot *counts = slot();
  counts->callocs++;
  counts->bytes += count * bytes;
  return __libc_calloc(count, bytes);
}

// Counts the bytes of the new size, since the old size is not known here.
void *realloc(void *old, size_t bytes) {
  struct slot *counts = slot();
  counts->reallocs++;
  counts->bytes += bytes;
  return __libc_realloc(old, bytes);
}

static void *aligned(size_t alignment, size_t bytes) {
  struct slot *counts = slot();
  counts->aligned++;
  counts->bytes += bytes;
  return __libc_memalign(alignment, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes) { return aligned(alignment, bytes); }

void *memalign(size_t alignment, size_t bytes) { return aligned(alignment, bytes); }

int posix_memalign(void **memory, size_t alignment, size_t bytes) {
  if (alignment % sizeof(void *) || !alignment || alignment & (alignment - 1)) return EINVAL;
  void *got = aligned(alignment, bytes);
  if (!got) return ENOMEM;
  *memory = got;
  return 0;
}

void free(void *memory) {
  if (memory) slot()->frees++;
  __libc_free(memory);
}
