// What the crate asks of the machine.
#include "../kernels/routines.h"
#include "handlers.h"

namespace xlann {
namespace {

constexpr InstructionSet best = InstructionSet::automatic;

}  // namespace
}  // namespace xlann

const char* xlann_instruction_set(int32_t type) {
  return xlann::name(xlann::search_set(xlann::best, static_cast<xlann::Type>(type)));
}

bool xlann_rounds_queries_as_rows() {
  return xlann::search_routines(xlann::best, xlann::Type::s8)->form != xlann::QueryForm::s8_pairs;
}
