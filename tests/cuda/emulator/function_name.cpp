#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>
#include <vector>

#include "engine.h"

namespace emulator {
namespace {

std::string mangled_name(const void* function) {
  Dl_info info;
  if (!dladdr(function, &info) || !info.dli_fname) return "";
  std::ifstream stream(info.dli_fname, std::ios::binary);
  const std::vector<char> file{std::istreambuf_iterator<char>(stream), {}};
  if (file.size() < sizeof(Elf64_Ehdr)) return "";
  const auto* header = reinterpret_cast<const Elf64_Ehdr*>(file.data());
  const auto* sections = reinterpret_cast<const Elf64_Shdr*>(file.data() + header->e_shoff);
  const uint64_t wanted = static_cast<const char*>(function) - static_cast<const char*>(info.dli_fbase);
  for (int s = 0; s < header->e_shnum; ++s) {
    if (sections[s].sh_type != SHT_SYMTAB) continue;
    const auto* symbols = reinterpret_cast<const Elf64_Sym*>(file.data() + sections[s].sh_offset);
    const char* names = file.data() + sections[sections[s].sh_link].sh_offset;
    for (size_t i = 0; i < sections[s].sh_size / sizeof(Elf64_Sym); ++i) {
      if (ELF64_ST_TYPE(symbols[i].st_info) == STT_FUNC && symbols[i].st_value == wanted)
        return names + symbols[i].st_name;
    }
  }
  return "";
}

}  // namespace

std::string function_name(const void* function) {
  std::string name = mangled_name(function);
  if (name.empty()) {
    std::ostringstream text;
    text << "kernel at " << function;
    return text.str();
  }
  int status = 0;
  if (char* readable = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status)) {
    name = readable;
    free(readable);
  }
  return name;
}

}  // namespace emulator
