// Marks a range function to be compiled for several x86-64 levels; the loader picks one for the machine it runs on.
// Only functions in a .cpp file may carry it: a marked inline function would lose its clones.
#pragma once

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12 && \
    !defined(L0FAST_NO_CLONES)
#define L0FAST_HAS_CLONES 1
#define L0FAST_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define L0FAST_HAS_CLONES 0
#define L0FAST_CLONES
#endif
