// What a CUDA build of libtorch has and a CPU build has not, and what a CPU build answers with an error. Hidden: the
// emulated library's own calls find these, torch's do not.
#include <cstdint>

#define L0FAST_SYMBOL extern "C" __attribute__((visibility("hidden")))

L0FAST_SYMBOL int32_t aoti_torch_get_current_cuda_stream(int32_t, void** stream) {
  *stream = nullptr;
  return 0;
}

L0FAST_SYMBOL int32_t aoti_torch_create_device_guard(int32_t, void** guard) {
  *guard = nullptr;
  return 0;
}

L0FAST_SYMBOL int32_t aoti_torch_delete_device_guard(void*) {
  return 0;
}

L0FAST_SYMBOL int32_t aoti_torch_device_guard_set_index(void*, int32_t) {
  return 0;
}
