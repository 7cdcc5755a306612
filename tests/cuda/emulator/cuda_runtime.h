// Stands in for the toolkit's header: the part of CUDA that csrc/cuda uses, run on the CPU (see README.md).
#pragma once

#include "device_types.h"
// The types come first.
#include "device_atomics.h"
#include "device_functions.h"
#include "host_api.h"
