// A list of launches, recorded once and repeated.
#pragma once

#include "cuda/launch.cuh"

namespace l0fast::cuda {

class EpochGraph {
 public:
  // record(device) makes the launches. They are captured on a stream of their own: the current one may be the default
  // stream, which cannot be captured.
  template <typename F>
  EpochGraph(const Device& device, const F& record) {
    check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    cudaGraph_t graph = nullptr;
    try {
      check_cuda(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
      record(device.on(stream_));
      check_cuda(cudaStreamEndCapture(stream_, &graph), "cudaStreamEndCapture");
      check_cuda(cudaGraphInstantiate(&executable_, graph, 0), "cudaGraphInstantiate");
    } catch (...) {
      release(graph);
      throw;
    }
    cudaGraphDestroy(graph);
  }

  EpochGraph(const EpochGraph&) = delete;
  EpochGraph& operator=(const EpochGraph&) = delete;
  ~EpochGraph() { release(nullptr); }

  void launch(const Device& device) const {
    check_cuda(cudaGraphLaunch(executable_, device.stream()), "cudaGraphLaunch");
  }

 private:
  void release(cudaGraph_t graph) {
    if (graph != nullptr) cudaGraphDestroy(graph);
    if (executable_ != nullptr) cudaGraphExecDestroy(executable_);
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  cudaStream_t stream_ = nullptr;
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace l0fast::cuda
