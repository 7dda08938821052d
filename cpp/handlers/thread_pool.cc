#include "thread_pool.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <new>

namespace xlann {

namespace {

// What the threads of one run share. The calling thread works too, and waits only for tasks that others have begun: a
// pool whose threads are all busy holds up nothing. Its threads may come to their turn after the run has ended; the last
// to leave deletes it.
struct Run {
  int tasks;
  void (*task)(void* argument, int index);
  void* argument;
  std::atomic<int> next{0};
  std::atomic<int> holders;
  std::mutex mutex;
  std::condition_variable ended;
  int left;  // tasks, under the mutex

  void work() {
    int done = 0;
    for (int index = next.fetch_add(1); index < tasks; index = next.fetch_add(1)) {
      task(argument, index);
      ++done;
    }
    if (done == 0) return;
    const std::lock_guard<std::mutex> lock(mutex);
    left -= done;
    if (left == 0) ended.notify_all();
  }

  void wait() {
    std::unique_lock<std::mutex> lock(mutex);
    ended.wait(lock, [this] { return left == 0; });
  }

  void leave(int count) {
    if (holders.fetch_sub(count) == count) delete this;
  }
};

void destroy(const xla_ffi::Api& api, xla_ffi::Error* error) {
  xla_ffi::ErrorDestroy destroy{sizeof(xla_ffi::ErrorDestroy), nullptr, error};
  api.error_destroy(&destroy);
}

// Whether the API of the caller, which may be older, reaches as far as its thread pool.
bool has_thread_pool(const xla_ffi::Api& api) {
  return api.size >= sizeof(xla_ffi::Api) && api.thread_pool_schedule != nullptr &&
         api.thread_pool_num_threads != nullptr;
}

}  // namespace

ThreadPool::ThreadPool(const xla_ffi::CallFrame& frame, int64_t threads) : frame_(frame) {
  if (!has_thread_pool(*frame.api) || threads == 1) return;
  int64_t all = 1;
  xla_ffi::ThreadPoolNumThreads ask{sizeof(xla_ffi::ThreadPoolNumThreads), nullptr, frame.context, &all};
  if (xla_ffi::Error* const error = frame.api->thread_pool_num_threads(&ask)) {
    destroy(*frame.api, error);
    return;
  }
  if (threads == 0 || threads > all) threads = all;
  threads_ = threads > 1024 ? 1024 : static_cast<int>(threads < 1 ? 1 : threads);
}

Parallel ThreadPool::parallel() {
  Parallel parallel;
  parallel.threads = threads_;
  parallel.context = this;
  parallel.run = run;
  return parallel;
}

void ThreadPool::run(void* context, int tasks, void (*task)(void* argument, int index), void* argument) {
  const auto& pool = *static_cast<const ThreadPool*>(context);
  const int helpers = (tasks < pool.threads_ ? tasks : pool.threads_) - 1;
  Run* const run = helpers > 0 ? new (std::nothrow) Run{} : nullptr;
  if (run == nullptr) {
    for (int index = 0; index < tasks; ++index) task(argument, index);
    return;
  }
  run->tasks = run->left = tasks;
  run->task = task;
  run->argument = argument;
  run->holders = helpers + 1;
  int scheduled = 0;
  while (scheduled < helpers) {
    const auto help = [](void* data) {
      Run* const run = static_cast<Run*>(data);
      run->work();
      run->leave(1);
    };
    xla_ffi::ThreadPoolSchedule ask{sizeof(xla_ffi::ThreadPoolSchedule), nullptr, pool.frame_.context, help, run};
    if (xla_ffi::Error* const error = pool.frame_.api->thread_pool_schedule(&ask)) {
      destroy(*pool.frame_.api, error);
      break;
    }
    ++scheduled;
  }
  run->work();
  run->wait();
  run->leave(1 + helpers - scheduled);
}

}  // namespace xlann
