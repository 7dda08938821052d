// Which instruction sets the machine has, and the table of each.
#include <initializer_list>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "routines.h"

namespace xlann {

#if defined(__x86_64__)
// Clang 14 does not know these by name. Asked once: a virtual machine takes microseconds to answer.
static bool has_f16c_and_lzcnt() {
  static const bool has = [] {
    constexpr unsigned lzcnt = 1 << 5;
    unsigned eax, ebx, ecx, edx, extended_ecx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0 &&
           __get_cpuid(0x80000001, &eax, &ebx, &extended_ecx, &edx) != 0 && (extended_ecx & lzcnt) != 0;
  }();
  return has;
}
#endif

bool supported(InstructionSet set) {
  switch (set) {
    case InstructionSet::automatic:
    case InstructionSet::portable:
      return true;
#if defined(__x86_64__)
    // All that set_*.cc turns on. These ask the operating system too, whether it saves the registers.
    case InstructionSet::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
             __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt") && has_f16c_and_lzcnt();
    case InstructionSet::avx512:
      return supported(InstructionSet::avx2) && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd");
    case InstructionSet::avx512_bf16:
      return supported(InstructionSet::avx512) && __builtin_cpu_supports("avx512bf16");
    case InstructionSet::avx512_vnni:
      return supported(InstructionSet::avx512) && __builtin_cpu_supports("avx512vnni");
#endif
#if defined(__aarch64__)
    case InstructionSet::neon:
      return true;
#endif
    default:
      return false;
  }
}

const char* name(InstructionSet set) {
  switch (set) {
    case InstructionSet::automatic:
      return "automatic";
    case InstructionSet::portable:
      return "portable";
    case InstructionSet::avx2:
      return "avx2";
    case InstructionSet::avx512:
      return "avx512";
    case InstructionSet::avx512_bf16:
      return "avx512_bf16";
    case InstructionSet::avx512_vnni:
      return "avx512_vnni";
    case InstructionSet::neon:
      return "neon";
  }
  return "unknown";
}

const Routines* routines(InstructionSet set) {
  if (set == InstructionSet::automatic) {
    for (InstructionSet best : {InstructionSet::neon, InstructionSet::avx512, InstructionSet::avx2}) {
      if (supported(best)) return routines(best);
    }
    return &portable_routines;
  }
  if (!supported(set)) return nullptr;
  switch (set) {
#if defined(__x86_64__)
    case InstructionSet::avx2:
      return &avx2_routines;
    case InstructionSet::avx512:
    case InstructionSet::avx512_bf16:
    case InstructionSet::avx512_vnni:
      return &avx512_routines;
#endif
#if defined(__aarch64__)
    case InstructionSet::neon:
      return &neon_routines;
#endif
    default:
      return &portable_routines;
  }
}

const SearchRoutines* search_routines(InstructionSet set, Type type) {
#if defined(__x86_64__)
  const bool automatic = set == InstructionSet::automatic;
  if (type == Type::bf16 && (automatic || set == InstructionSet::avx512_bf16) &&
      supported(InstructionSet::avx512_bf16)) {
    return &avx512_bf16_search;
  }
  if (type == Type::s8 && (automatic || set == InstructionSet::avx512_vnni) &&
      supported(InstructionSet::avx512_vnni)) {
    return &avx512_vnni_search;
  }
#endif
  const Routines* table = routines(set);
  return table == nullptr ? nullptr : &table->search[static_cast<int>(type)];
}

}  // namespace xlann
