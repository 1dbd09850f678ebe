// Mapped files that are cut, written to, or cannot be read while they are searched.
//
// The files are immutable, so that one look at size and time of writing after each batch (0.3 us a
// file) tells whether the batch is worth anything. A file of another size is damaged; one that was
// written to is not trusted until its owner has compared it with its checksum, since `touch` changes
// the time alone. And what is there to be read must not end the
// process: reading a page that the file no longer has raises SIGBUS. Here the handler
// puts pages of zeros in the place of a guarded mapping's missing ones and marks the mapping
// damaged: the search goes on, over zeros that its bounds checks stand, and its caller throws away
// what it found. libwayland does the same for the buffers of its clients (wl_shm_buffer_begin_access).
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <mutex>
#include <string>
#include <system_error>

#ifdef __SANITIZE_THREAD__
extern "C" void AnnotateIgnoreWritesBegin(const char* file, int line);
extern "C" void AnnotateIgnoreWritesEnd(const char* file, int line);
#endif

namespace resmem {

// A range of addresses that the handler knows. Entries are used again, never freed: the handler may
// walk the list at any time, and takes no lock.
struct MappedRange {
  std::atomic<std::uintptr_t> begin{0}, end{0};
  // Odd while the two change, so that the handler never takes one of an earlier mapping for the
  // other's.
  std::atomic<std::uint32_t> changes{0};
  std::atomic<bool> damaged{false}, taken{true};
  MappedRange* next = nullptr;
};

class MappedRanges {
 public:
  static MappedRange* add(const void* data, std::size_t size) {
    install();
    MappedRange* range = unused();
    range->damaged.store(false);
    const auto begin = reinterpret_cast<std::uintptr_t>(data);
    set(range, begin, begin + size);
    return range;
  }

  static void remove(MappedRange* range) {
    set(range, 0, 0);
    range->taken.store(false, std::memory_order_release);
  }

 private:
  static void set(MappedRange* range, std::uintptr_t begin, std::uintptr_t end) {
    ++range->changes;
    range->begin.store(begin);
    range->end.store(end);
    ++range->changes;
  }

  static MappedRange* unused() {
    for (MappedRange* range = head().load(); range != nullptr; range = range->next) {
      bool taken = false;
      if (range->taken.compare_exchange_strong(taken, true)) return range;
    }
    auto* range = new MappedRange;
    range->next = head().load();
    while (!head().compare_exchange_weak(range->next, range)) {
    }
    return range;
  }

  static std::atomic<MappedRange*>& head() {
    static std::atomic<MappedRange*> first{nullptr};
    return first;
  }

  static struct sigaction& previous() {
    static struct sigaction action{};
    return action;
  }

  // Again for every mapping: somebody else may have taken the signal since the last one.
  static void install() {
    static std::mutex alone;
    const std::lock_guard<std::mutex> held(alone);
    page_bytes();  // so that the handler finds it known
    struct sigaction now{};
    sigaction(SIGBUS, nullptr, &now);
    if ((now.sa_flags & SA_SIGINFO) != 0 && now.sa_sigaction == &handle) return;
    previous() = now;
    struct sigaction ours{};
    ours.sa_sigaction = &handle;
    ours.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigemptyset(&ours.sa_mask);
    if (sigaction(SIGBUS, &ours, nullptr) != 0)
      throw std::system_error(errno, std::generic_category(), "sigaction");
  }

  static std::uintptr_t page_bytes() {
    static const auto bytes = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
    return bytes;
  }

  static void handle(int signal, siginfo_t* info, void* context) {
    const int error = errno;
    const auto at = reinterpret_cast<std::uintptr_t>(info->si_addr);
    for (MappedRange* range = head().load(); range != nullptr; range = range->next) {
      // Of a range that is being read nothing changes: what changes is another one.
      const std::uint32_t changes = range->changes.load();
      const std::uintptr_t begin = range->begin.load(), end = range->end.load();
      if (changes % 2 != 0 || range->changes.load() != changes) continue;
      if (at < begin || at >= end) continue;
      const std::uintptr_t page = at & ~(page_bytes() - 1);
#ifdef __SANITIZE_THREAD__
      // To ThreadSanitizer a mapping is a write to all of it. Other threads may read there, which
      // is what the zeros are for.
      AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
#endif
      void* zeros = mmap(reinterpret_cast<void*>(page), end - page, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
#ifdef __SANITIZE_THREAD__
      AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
#endif
      if (zeros == MAP_FAILED) break;
      range->damaged.store(true, std::memory_order_release);
      errno = error;
      return;
    }
    pass_on(signal, info, context);
  }

  static void pass_on(int signal, siginfo_t* info, void* context) {
    const struct sigaction& other = previous();
    if ((other.sa_flags & SA_SIGINFO) != 0) {
      other.sa_sigaction(signal, info, context);
    } else if (other.sa_handler != SIG_DFL && other.sa_handler != SIG_IGN) {
      other.sa_handler(signal);
    } else {
      // What was read is read again, and ends the process as it would have without us.
      struct sigaction usual{};
      usual.sa_handler = SIG_DFL;
      sigaction(signal, &usual, nullptr);
    }
  }
};

// Guards one mapped file for as long as it lives; it must not outlive the mapping.
class Mapping {
 public:
  // `data` lies in the mapping of the file `name`, which is `file_bytes` long.
  Mapping(const void* data, std::size_t size, std::string name, std::size_t file_bytes)
      : name_(std::move(name)), descriptor_(open(name_.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (descriptor_ < 0) throw std::system_error(errno, std::generic_category(), name_);
    written_ns_.store(written_now());
    file_bytes_ = static_cast<off_t>(file_bytes);
    range_ = MappedRanges::add(data, size);
  }
  ~Mapping() {
    MappedRanges::remove(range_);
    close(descriptor_);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  const std::string& name() const { return name_; }

  // True where something was found amiss: everything read since is worth nothing.
  bool damaged() const { return range_->damaged.load(std::memory_order_acquire); }

  // Looks whether the file was cut or written to. Of a page that was cut in the middle the rest
  // reads as zeros, without a signal.
  bool intact() const {
    const struct stat now = status();
    if (now.st_size != file_bytes_) range_->damaged.store(true, std::memory_order_release);
    return !damaged() && nanoseconds(now) == written_ns_.load(std::memory_order_acquire);
  }

  // When the file was written to, in nanoseconds since 1970, as the disk says now.
  std::int64_t written_now() const { return nanoseconds(status()); }

  // Trusts the file as it was written at this time: its content was compared with its checksum.
  void trust(std::int64_t written_ns) { written_ns_.store(written_ns, std::memory_order_release); }

  // Of the mapped file, whatever its name leads to by now.
  int descriptor() const { return descriptor_; }

 private:
  struct stat status() const {
    struct stat found{};
    if (fstat(descriptor_, &found) != 0) found.st_size = -1;
    return found;
  }

  static std::int64_t nanoseconds(const struct stat& found) {
    return std::int64_t{found.st_mtim.tv_sec} * 1'000'000'000 + found.st_mtim.tv_nsec;
  }

  std::string name_;
  int descriptor_;
  MappedRange* range_;
  off_t file_bytes_;
  std::atomic<std::int64_t> written_ns_{0};
};

}  // namespace resmem
