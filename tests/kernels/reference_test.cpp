#include "kernels/reference.hpp"

#include <random>

#include "../catch.hpp"

using namespace orrery;

namespace {

Doubles random_numbers(int64_t count, unsigned seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal;
  Doubles out;
  for (int64_t i = 0; i < count; ++i) out.push_back(normal(engine));
  return out;
}

AttentionShape shape(int64_t n_q, int64_t n_k, Mask mask, int64_t window = 0) {
  AttentionShape s;
  s.n_q = n_q;
  s.n_k = n_k;
  s.heads = 4;
  s.kv_heads = 2;
  s.head_dim = 8;
  s.mask = mask;
  s.window = window;
  return s;
}

}  // namespace

TEST_CASE("an attention block reads and writes each tensor once: bf16 numbers, and the log-sum-exp in fp32") {
  const AttentionShape s = shape(6, 10, Mask::full);  // 4 query and 2 key heads of 8 numbers
  const double q = 2 * 6 * 4 * 8, k = 2 * 10 * 2 * 8, lse = 4 * 6 * 4;
  CHECK(s.forward_bytes() == 2 * q + 2 * k + lse);   // q, o; k, v
  CHECK(s.backward_bytes() == 4 * q + 4 * k + lse);  // q, o, do, dq; k, v, dk, dv
}

TEST_CASE("pairs of a mask have their closed forms") {
  CHECK(shape(5, 7, Mask::full).pairs() == 35);
  CHECK(shape(6, 6, Mask::causal).pairs() == 21);
  CHECK(shape(4, 6, Mask::causal).pairs() == 3 + 4 + 5 + 6);  // the ends are aligned
  const double n = 100, k = 16;
  CHECK(shape(100, 100, Mask::window, 16).pairs() == n * k - k * (k - 1) / 2);
  CHECK(shape(8, 24, Mask::window, 16).pairs() == 8 * 16);  // a halo of a window: every row is full
  CHECK(shape(6, 6, Mask::window, 6).pairs() == shape(6, 6, Mask::causal).pairs());
}

TEST_CASE("the backward pass counts two and a half times the forward pass") {
  const AttentionShape s = shape(16, 32, Mask::full);
  CHECK(s.forward_flops() == 4.0 * 16 * 32 * 8 * 4);
  CHECK(s.backward_flops() == 2.5 * s.forward_flops());
}

TEST_CASE("one key gives its value, and two equal keys the mean of theirs") {
  const AttentionShape s = shape(3, 1, Mask::full);
  const Doubles q = random_numbers(3 * 4 * 8, 1), k = random_numbers(2 * 8, 2), v = random_numbers(2 * 8, 3);
  const ReferenceForward out = reference_forward(s, q, k, v);
  for (int64_t i = 0; i < 3; ++i) {
    for (int64_t h = 0; h < 4; ++h) {
      for (int64_t c = 0; c < 8; ++c) CHECK_THAT(out.o[(i * 4 + h) * 8 + c], WithinAbs(v[h / 2 * 8 + c], 1e-14));
    }
  }
  const AttentionShape two = shape(1, 2, Mask::full);
  Doubles twice = k;
  twice.insert(twice.end(), k.begin(), k.end());
  const Doubles values = random_numbers(2 * 2 * 8, 4);
  const ReferenceForward mean = reference_forward(two, q, twice, values);
  CHECK_THAT(mean.o[0], WithinAbs((values[0] + values[16]) / 2, 1e-14));
}

TEST_CASE("merging the halves of the keys gives attention over all of them") {
  const AttentionShape whole = shape(6, 10, Mask::full);
  const Doubles q = random_numbers(6 * 4 * 8, 1), k = random_numbers(10 * 2 * 8, 2), v = random_numbers(10 * 2 * 8, 3);
  const ReferenceForward expected = reference_forward(whole, q, k, v);
  AttentionShape first = whole, second = whole;
  first.n_k = 3;
  second.n_k = 7;
  ReferenceForward a = reference_forward(first, q, k, v);
  const Doubles k2(k.begin() + 3 * 2 * 8, k.end()), v2(v.begin() + 3 * 2 * 8, v.end());
  const ReferenceForward b = reference_forward(second, q, k2, v2);
  reference_merge(a.o, a.lse, b.o, b.lse, 8, 6, 4);
  CHECK(difference(a.o, expected.o, 8).norm < 1e-14);
  CHECK(difference(a.lse, expected.lse, 6).norm < 1e-14);
}

TEST_CASE("gradients agree with differences, for every mask") {
  for (const AttentionShape& s : {shape(5, 5, Mask::full), shape(5, 5, Mask::causal), shape(5, 8, Mask::window, 3)}) {
    const Doubles q = random_numbers(s.n_q * 4 * 8, 1), k = random_numbers(s.n_k * 2 * 8, 2);
    const Doubles v = random_numbers(s.n_k * 2 * 8, 3), d_o = random_numbers(s.n_q * 4 * 8, 4);
    const ReferenceForward f = reference_forward(s, q, k, v);
    const ReferenceBackward g = reference_backward(s, q, k, v, f.o, d_o, f.lse);
    auto loss = [&](const Doubles& q1, const Doubles& k1, const Doubles& v1) {
      const Doubles o = reference_forward(s, q1, k1, v1).o;
      double sum = 0;
      for (size_t i = 0; i < o.size(); ++i) sum += o[i] * d_o[i];
      return sum;
    };
    auto slope = [&](Doubles which[3], int tensor, size_t i) {
      const double step = 1e-5, x = which[tensor][i];
      which[tensor][i] = x + step;
      const double up = loss(which[0], which[1], which[2]);
      which[tensor][i] = x - step;
      const double down = loss(which[0], which[1], which[2]);
      which[tensor][i] = x;
      return (up - down) / (2 * step);
    };
    Doubles tensors[3] = {q, k, v};
    for (size_t i : {size_t{0}, size_t{37}, size_t{70}}) {
      CHECK_THAT(g.dq[i], WithinAbs(slope(tensors, 0, i), 1e-7));
      CHECK_THAT(g.dk[i], WithinAbs(slope(tensors, 1, i), 1e-7));
      CHECK_THAT(g.dv[i], WithinAbs(slope(tensors, 2, i), 1e-7));
    }
  }
}

TEST_CASE("gradients of key blocks, with the whole row's O and LSE, add up") {
  const AttentionShape whole = shape(4, 9, Mask::full);
  const Doubles q = random_numbers(4 * 4 * 8, 1), k = random_numbers(9 * 2 * 8, 2), v = random_numbers(9 * 2 * 8, 3);
  const Doubles d_o = random_numbers(4 * 4 * 8, 4);
  const ReferenceForward f = reference_forward(whole, q, k, v);
  const ReferenceBackward expected = reference_backward(whole, q, k, v, f.o, d_o, f.lse);
  AttentionShape part = whole;
  part.n_k = 4;
  const size_t cut = 4 * 2 * 8;
  const Doubles k1(k.begin(), k.begin() + cut), v1(v.begin(), v.begin() + cut);
  ReferenceBackward a = reference_backward(part, q, k1, v1, f.o, d_o, f.lse);
  part.n_k = 5;
  const Doubles k2(k.begin() + cut, k.end()), v2(v.begin() + cut, v.end());
  const ReferenceBackward b = reference_backward(part, q, k2, v2, f.o, d_o, f.lse);
  for (size_t i = 0; i < a.dq.size(); ++i) a.dq[i] += b.dq[i];
  a.dk.insert(a.dk.end(), b.dk.begin(), b.dk.end());
  CHECK(difference(a.dq, expected.dq, 8).norm < 1e-13);
  CHECK(difference(a.dk, expected.dk, 8).norm < 1e-13);
}

TEST_CASE("a difference sees a wrong row, a missing number and NaN") {
  const Doubles expected = random_numbers(64, 5);
  CHECK(difference(expected, expected, 8).norm == 0);
  Doubles wrong = expected;
  for (size_t i = 8; i < 16; ++i) wrong[i] = 0;
  CHECK_THAT(difference(wrong, expected, 8).row_max, WithinRel(1.0, 1e-12));
  wrong[3] = std::numeric_limits<double>::quiet_NaN();
  CHECK(std::isinf(difference(wrong, expected, 8).norm));
  CHECK(std::isinf(difference(Doubles(32), expected, 8).norm));
}
