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

static bool has_avx_vnni() {
#if defined(XLANN_AVX_VNNI)
  static const bool has = [] {
    constexpr unsigned avx_vnni = 1 << 4;
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && eax >= 1 &&
           __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & avx_vnni) != 0;
  }();
  return has;
#else
  return false;
#endif
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
    case InstructionSet::avx_vnni:
      return supported(InstructionSet::avx2) && has_avx_vnni();
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
    case InstructionSet::avx_vnni:
      return "avx_vnni";
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
  if (set == InstructionSet::automatic) return routines(search_set(set, Type::f32));
  if (!supported(set)) return nullptr;
  switch (set) {
#if defined(__x86_64__)
    case InstructionSet::avx2:
    case InstructionSet::avx_vnni:
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

InstructionSet search_set(InstructionSet set, Type type) {
  if (set == InstructionSet::automatic) {
    for (InstructionSet best : {InstructionSet::neon, InstructionSet::avx512_bf16, InstructionSet::avx512_vnni,
                                InstructionSet::avx512, InstructionSet::avx_vnni, InstructionSet::avx2}) {
      if (supported(best) && search_set(best, type) == best) return best;
    }
    return InstructionSet::portable;
  }
  switch (set) {
    case InstructionSet::avx_vnni:
      return type == Type::s8 ? set : InstructionSet::avx2;
    case InstructionSet::avx512_bf16:
      return type == Type::bf16 ? set : InstructionSet::avx512;
    case InstructionSet::avx512_vnni:
      return type == Type::s8 ? set : InstructionSet::avx512;
    default:
      return set;
  }
}

const SearchRoutines* search_routines(InstructionSet set, Type type) {
  set = search_set(set, type);
  const Routines* const table = routines(set);
  if (table == nullptr) return nullptr;
  switch (set) {
#if defined(__x86_64__)
#if defined(XLANN_AVX_VNNI)
    case InstructionSet::avx_vnni:
      return &avx_vnni_search;
#endif
    case InstructionSet::avx512_bf16:
      return &avx512_bf16_search;
    case InstructionSet::avx512_vnni:
      return &avx512_vnni_search;
    case InstructionSet::avx2:
      if (type == Type::s8) return &avx2_s8_search;
      break;
    case InstructionSet::avx512:
      if (type == Type::s8) return &avx512_s8_search;
      break;
#endif
    default:
      break;
  }
  return &table->search[static_cast<int>(type)];
}

}  // namespace xlann
