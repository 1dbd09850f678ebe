// A number that the processes of one machine count up together, in a mapped file of 8 bytes.
//
// Reading it is one load, without a call into the system: a reader that finds it where it was has
// nothing to read anew.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <string>
#include <system_error>

#include "mapping.hpp"

namespace resmem {

class SharedCounter {
 public:
  // Makes the file where it is missing.
  explicit SharedCounter(const std::string& path) {
    const int descriptor = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (descriptor < 0) throw std::system_error(errno, std::generic_category(), path);
    // Before it is mapped: a page that the disk has no room for would raise SIGBUS.
    int error = posix_fallocate(descriptor, 0, sizeof(Count));
    void* data = MAP_FAILED;
    if (error == 0) {
      data = mmap(nullptr, sizeof(Count), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
      if (data == MAP_FAILED) error = errno;
    }
    close(descriptor);
    if (error != 0) throw std::system_error(error, std::generic_category(), path);
    count_ = static_cast<Count*>(data);
    range_ = MappedRanges::add(data, sizeof(Count));
  }
  ~SharedCounter() {
    MappedRanges::remove(range_);
    munmap(count_, sizeof(Count));
  }
  SharedCounter(const SharedCounter&) = delete;
  SharedCounter& operator=(const SharedCounter&) = delete;

  std::uint64_t value() const { return count_->load(); }
  void add() { count_->fetch_add(1); }

  // True where the file was cut: the number is this process's alone from then on.
  bool damaged() const { return range_->damaged.load(std::memory_order_acquire); }

 private:
  using Count = std::atomic<std::uint64_t>;
  static_assert(Count::is_always_lock_free, "processes share no lock");

  Count* count_;
  MappedRange* range_;
};

}  // namespace resmem
