// What the crate asks of the machine.
#include "../kernels/kernels.h"
#include "handlers.h"

bool xlann_multiplies_s8() { return xlann::supported(xlann::InstructionSet::avx512_vnni); }

bool xlann_multiplies_bf16() { return xlann::supported(xlann::InstructionSet::avx512_bf16); }
