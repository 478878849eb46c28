// Primitives of patterns, written short.
#pragma once

#include "scenarios/pattern.hpp"

namespace orrery {

inline Primitive window(Index left, Index right = 0) {
  return {.kind = Primitive::Kind::window, .left = left, .right = right};
}
inline Primitive stride(Index period, Index count) {
  return {.kind = Primitive::Kind::stride, .period = period, .count = count};
}

}  // namespace orrery
