// Streams, events, and capture: a captured graph is a list of nodes, each with the nodes it must follow. Launched, it
// runs them in a random order among those allowed, so that a missing event shows.
#include "streams.h"

#include <pthread.h>

#include <algorithm>

using emulator::failed;
using emulator::Work;

namespace {

struct Node {
  Work work;
  std::vector<int> after;
};
using Nodes = std::vector<Node>;

// One capture: the stream where it began, and those that joined by waiting for an event.
struct Capture {
  Nodes nodes;
  cudaStream_t origin;
  std::vector<cudaStream_t> streams;
  cudaStreamCaptureMode mode;
  pthread_t thread;
  bool valid = true;
};

void add_new(std::vector<int>& to, const std::vector<int>& from) {
  for (const int i : from)
    if (std::find(to.begin(), to.end(), i) == to.end()) to.push_back(i);
}

}  // namespace

struct CUstream_st {
  std::shared_ptr<Capture> capture;  // while it is being captured
  std::vector<int> tail;             // the nodes that its next node follows
};

struct CUevent_st {
  std::weak_ptr<Capture> capture;  // of the stream where it was recorded last
  std::vector<int> tail;
  bool captured = false;
};

struct CUgraph_st {
  std::shared_ptr<const Nodes> nodes;
};

struct CUgraphExec_st {
  std::shared_ptr<const Nodes> nodes;
};

namespace {

// The null stream and the two special handles for it are never captured.
Capture* capture_of(cudaStream_t stream) {
  return reinterpret_cast<uintptr_t>(stream) <= 2 ? nullptr : stream->capture.get();
}

// What cannot be captured spoils the capture.
cudaError_t refuse_capture(cudaStream_t stream) {
  Capture* const capture = capture_of(stream);
  if (!capture) return cudaSuccess;
  capture->valid = false;
  return failed(cudaErrorStreamCaptureUnsupported);
}

void run_nodes(const Nodes& nodes) {
  std::vector<int> waits(nodes.size()), ready;
  for (size_t i = 0; i < nodes.size(); ++i) {
    waits[i] = static_cast<int>(nodes[i].after.size());
    if (waits[i] == 0) ready.push_back(static_cast<int>(i));
  }
  while (!ready.empty()) {
    std::swap(ready[emulator::random_below(ready.size())], ready.back());
    const int now = ready.back();
    ready.pop_back();
    nodes[now].work();
    for (size_t i = now + 1; i < nodes.size(); ++i) {
      const auto& after = nodes[i].after;
      if (std::find(after.begin(), after.end(), now) != after.end() && --waits[i] == 0)
        ready.push_back(static_cast<int>(i));
    }
  }
}

}  // namespace

namespace emulator {

cudaError_t enqueue(cudaStream_t stream, Work work) {
  Capture* const capture = capture_of(stream);
  if (!capture) {
    work();
    return cudaSuccess;
  }
  if (!capture->valid) return failed(cudaErrorStreamCaptureInvalidated);
  capture->nodes.push_back({std::move(work), stream->tail});
  stream->tail = {static_cast<int>(capture->nodes.size()) - 1};
  return cudaSuccess;
}

}  // namespace emulator

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  if (flags > cudaStreamNonBlocking) return failed(cudaErrorInvalidValue);
  *stream = new CUstream_st;
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  if (reinterpret_cast<uintptr_t>(stream) <= 2) return failed(cudaErrorInvalidResourceHandle);
  if (Capture* const capture = capture_of(stream)) capture->valid = false;
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return refuse_capture(stream);
}

cudaError_t cudaDeviceSynchronize() {
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  const Capture* const capture = capture_of(stream);
  *status = !capture         ? cudaStreamCaptureStatusNone
            : capture->valid ? cudaStreamCaptureStatusActive
                             : cudaStreamCaptureStatusInvalidated;
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  if (reinterpret_cast<uintptr_t>(stream) <= 2) return failed(cudaErrorStreamCaptureUnsupported);
  if (stream->capture) return failed(cudaErrorIllegalState);
  stream->capture = std::make_shared<Capture>();
  stream->capture->origin = stream;
  stream->capture->streams = {stream};
  stream->capture->mode = mode;
  stream->capture->thread = pthread_self();
  stream->tail.clear();
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  if (!capture_of(stream)) return failed(cudaErrorIllegalState);
  const std::shared_ptr<Capture> capture = stream->capture;
  if (capture->mode != cudaStreamCaptureModeRelaxed && !pthread_equal(capture->thread, pthread_self()))
    return failed(cudaErrorStreamCaptureWrongThread);
  if (capture->origin != stream) return failed(cudaErrorStreamCaptureUnmatched);
  for (const cudaStream_t s : capture->streams) s->capture.reset();
  if (!capture->valid) return failed(cudaErrorStreamCaptureInvalidated);
  // The origin must come after every node: those that nothing follows are in its tail.
  std::vector<int> followed = stream->tail;
  for (const Node& node : capture->nodes) add_new(followed, node.after);
  if (followed.size() != capture->nodes.size()) return failed(cudaErrorStreamCaptureUnjoined);
  *graph = new CUgraph_st{std::make_shared<const Nodes>(std::move(capture->nodes))};
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  if (!graph) return failed(cudaErrorInvalidValue);
  *exec = new CUgraphExec_st{graph->nodes};
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  if (!exec) return failed(cudaErrorInvalidValue);
  return emulator::enqueue(stream, [nodes = exec->nodes] { run_nodes(*nodes); });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->captured = capture_of(stream);
  event->capture.reset();
  if (event->captured) {
    event->capture = stream->capture;
    event->tail = stream->tail;
  }
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return event->captured ? failed(cudaErrorCapturedEvent) : cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  return cudaEventSynchronize(event);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  Capture* const own = capture_of(stream);
  if (!event->captured) {
    if (!own) return cudaSuccess;
    own->valid = false;
    return failed(cudaErrorStreamCaptureIsolation);
  }
  const std::shared_ptr<Capture> other = event->capture.lock();
  const bool ended = !other || !other->origin->capture || other->origin->capture != other;
  if (ended || reinterpret_cast<uintptr_t>(stream) <= 2) return failed(cudaErrorCapturedEvent);
  if (own && own != other.get()) {
    own->valid = other->valid = false;
    return failed(cudaErrorStreamCaptureMerge);
  }
  if (!own) {
    stream->capture = other;
    stream->tail.clear();
    other->streams.push_back(stream);
  }
  add_new(stream->tail, event->tail);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* to, int byte, size_t bytes, cudaStream_t stream) {
  return emulator::enqueue(stream, [=] { memset(to, byte, bytes); });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault) return failed(cudaErrorInvalidValue);
  return emulator::enqueue(stream, [=] { memcpy(to, from, bytes); });
}
