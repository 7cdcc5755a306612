// Cases for the host's side: launches, attributes, capture; and for the intrinsics.
#include "test_emulator.h"

namespace l0fast::cuda {
namespace {

__global__ void nothing() {}

__global__ void assign(int* to, int x) {
  *to = x;
}
__global__ void add(int* to, const int* x, const int* y) {
  *to = *x + *y;
}

// Two branches that join, on two streams; kWait false: the join lacks an event, and the sum can come too early.
struct Captured {
  cudaStream_t a, b;
  cudaEvent_t fork, join;
  cudaGraph_t graph = nullptr;
  int x = 0, y = 0, sum = 0;

  Captured() {
    cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking);
    cudaEventCreateWithFlags(&fork, cudaEventDisableTiming);
    cudaEventCreateWithFlags(&join, cudaEventDisableTiming);
    check(cudaStreamBeginCapture(a, cudaStreamCaptureModeThreadLocal) == cudaSuccess, "begin");
  }
  // Work on b, and, late or in time, an event for a.
  void branch(bool wait_before_sum) {
    cudaEventRecord(fork, a);
    cudaStreamWaitEvent(b, fork);
    start(a, 1, 1, 0, assign, &x, 3);
    start(b, 1, 1, 0, assign, &y, 4);
    cudaEventRecord(join, b);
    if (wait_before_sum) cudaStreamWaitEvent(a, join);
    start(a, 1, 1, 0, add, &sum, &x, &y);
    if (!wait_before_sum) cudaStreamWaitEvent(a, join);
  }
  int wrong_sums() {
    cudaGraphExec_t exec;
    check(cudaStreamEndCapture(a, &graph) == cudaSuccess, "end");
    check(cudaGraphInstantiate(&exec, graph) == cudaSuccess && cudaGraphDestroy(graph) == cudaSuccess, "instantiate");
    check(x == 0 && y == 0 && sum == 0, "work ran while it was captured");
    int wrong = 0;
    for (int i = 0; i < 40; ++i) {
      x = y = sum = 0;
      check(cudaGraphLaunch(exec, nullptr) == cudaSuccess, "graph launch");
      check(x == 3 && y == 4, "a node did not run");
      wrong += sum != 7;
    }
    cudaGraphExecDestroy(exec);
    return wrong;
  }
};

}  // namespace

void test_launch_limits() {
  check(start(nullptr, 0, 32, 0, nothing) == cudaErrorInvalidConfiguration, "0 blocks");
  check(start(nullptr, 1, 0, 0, nothing) == cudaErrorInvalidConfiguration, "0 threads");
  check(start(nullptr, 1, 1025, 0, nothing) == cudaErrorInvalidConfiguration, "1025 threads");
  check(start(nullptr, 1, 1024, 49152, nothing) == cudaSuccess, "48 KB");
  check(start(nullptr, 1, 32, 49153, nothing) == cudaErrorInvalidValue, "more than 48 KB without asking");
  check(cudaGetLastError() == cudaErrorInvalidValue && cudaGetLastError() == cudaSuccess, "the last error");
  const auto attribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
  check(cudaFuncSetAttribute(nothing, attribute, 232448) == cudaSuccess, "227 KB");
  check(start(nullptr, 1, 32, 232448, nothing) == cudaSuccess, "227 KB after asking");
  check(cudaFuncSetAttribute(nothing, attribute, 232449) == cudaErrorInvalidValue, "more than 227 KB");
  int blocks = -1;
  check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, nothing, 256, 65536) == cudaSuccess && blocks == 3,
        "occupancy");
}

void test_small_device() {  // L0FAST_EMULATED_SMS=3 L0FAST_EMULATED_SHARED=20000
  int multiprocessors = 0, shared = 0, most = 0;
  check(!cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0) && multiprocessors == 3, "SMS");
  check(!cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlock, 0) && shared == 20000, "default shared");
  check(!cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0) && most == 20000, "most shared");
  check(start(nullptr, 1, 32, 20001, nothing) == cudaErrorInvalidValue, "more than there is");
}

void test_capture() {
  Captured good;
  good.branch(true);
  check(good.wrong_sums() == 0, "order of nodes");
  Captured bad;
  bad.branch(false);
  const int wrong = bad.wrong_sums();
  check(wrong > 0 && wrong < 40, "a missing event does not show");
}

void test_capture_errors() {
  Captured unjoined;
  cudaEventRecord(unjoined.fork, unjoined.a);
  cudaStreamWaitEvent(unjoined.b, unjoined.fork);
  start(unjoined.b, 1, 1, 0, assign, &unjoined.x, 1);
  check(cudaStreamEndCapture(unjoined.a, &unjoined.graph) == cudaErrorStreamCaptureUnjoined, "unjoined");
  check(unjoined.x == 0 && !unjoined.graph, "a graph from a failed capture");

  Captured waits;
  check(cudaStreamSynchronize(waits.a) == cudaErrorStreamCaptureUnsupported, "synchronize while capturing");
  check(start(waits.a, 1, 1, 0, nothing) == cudaErrorStreamCaptureInvalidated, "launch after that");
  check(cudaStreamEndCapture(waits.a, &waits.graph) == cudaErrorStreamCaptureInvalidated, "end after that");
  check(cudaStreamSynchronize(waits.a) == cudaSuccess, "synchronize after the capture");

  Captured isolated;
  cudaEventRecord(isolated.join, isolated.b);
  check(cudaStreamWaitEvent(isolated.a, isolated.join) == cudaErrorStreamCaptureIsolation, "an event from outside");
  check(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeThreadLocal) == cudaErrorStreamCaptureUnsupported,
        "capture of the null stream");
}

void test_intrinsics() {
  check(__float2ll_rn(2.5f) == 2 && __float2ll_rn(-3.5f) == -4 && __float2ll_rn(1e30f) == INT64_MAX, "__float2ll_rn");
  check(__double2ll_rn(-1e30) == INT64_MIN && __double2ll_rn(4503599627370497.5) == 4503599627370498, "__double2ll_rn");
  check(__clz(0) == 32 && __clz(1) == 31 && __ffs(0) == 0 && __ffs(8) == 4 && __popcll(~0ull) == 64, "bits");
  check(__umulhi(0xffffffffu, 0xffffffffu) == 0xfffffffeu, "__umulhi");
  int low = 5;
  check(atomicMin(&low, -2) == 5 && low == -2 && atomicMax(&low, 9) == -2 && low == 9, "atomicMin, atomicMax");
  check(atomicCAS(&low, 8, 1) == 9 && low == 9 && atomicCAS(&low, 9, 1) == 9 && low == 1, "atomicCAS");
}

}  // namespace l0fast::cuda
