// On a GPU: a small problem of every kernel against the CPU reference. The bench does the same before it times a row.
#include "../catch.hpp"
#include "kernels/merge.hpp"
#include "kernels/table.hpp"
#if ORRERY_HAVE_CUDNN
#include "kernels/attention_check.hpp"
#include "kernels/attention_op.hpp"
#include "kernels/ring_check.hpp"
#endif

using namespace orrery;

TEST_CASE("the merge kernel merges into the late half of a row") {
  MergeShape s;
  s.n_q = 96;
  s.heads = 3;
  s.head_dim = 64;
  s.lse_stride = 192;
  const auto n = static_cast<size_t>(s.elements()), rows = static_cast<size_t>(s.heads * 192);
  DeviceBuffer o(n * 4), lse(rows * 4), block(n * 2), block_lse(static_cast<size_t>(s.heads * s.n_q) * 4);
  Stream stream;
  fill_normal_f32(o.get(), n, 1, stream);
  fill_normal_f32(lse.get(), rows, 2, stream);
  fill_normal_bf16(block.get(), n, 3, stream);
  fill_normal_f32(block_lse.get(), static_cast<size_t>(s.heads * s.n_q), 4, stream);
  stream.sync();
  Doubles expected = download_f32(o.get(), n), all = download_f32(lse.get(), rows), expected_lse;
  for (int64_t h = 0; h < s.heads; ++h) {
    expected_lse.insert(expected_lse.end(), all.begin() + h * 192 + 96, all.begin() + (h + 1) * 192);
  }
  reference_merge(expected, expected_lse, download_bf16(block.get(), n),
                  download_f32(block_lse.get(), static_cast<size_t>(s.heads * s.n_q)), s.head_dim, s.n_q, s.heads);
  merge_block(s, o.as<float>(), lse.as<float>() + 96, block.get(), block_lse.as<float>(), false, stream);
  stream.sync();
  CHECK(difference(download_f32(o.get(), n), expected, s.head_dim).row_max < 1e-5);
  const Doubles got = download_f32(lse.get(), rows);
  for (int64_t h = 0; h < s.heads; ++h) {
    for (int64_t i = 0; i < 96; ++i) {
      CHECK_THAT(got[h * 192 + 96 + i], WithinAbs(expected_lse[h * 96 + i], 1e-5));
      CHECK(got[h * 192 + i] == all[h * 192 + i]);  // the early half is not touched
    }
  }
}

#if ORRERY_HAVE_CUDNN
TEST_CASE("attention blocks through cuDNN") {
  Stream stream;
  struct Case {
    int64_t n_q, n_k, d;
    Mask mask;
    int64_t window;
  };
  for (const Case& c : {Case{256, 384, 128, Mask::full, 0}, Case{256, 256, 64, Mask::causal, 0},
                        Case{256, 256, 128, Mask::window, 64}, Case{256, 320, 128, Mask::window, 64}}) {
    AttentionShape s;
    s.n_q = c.n_q;
    s.n_k = c.n_k;
    s.heads = 4;
    s.kv_heads = 2;
    s.head_dim = c.d;
    s.mask = c.mask;
    s.window = c.window;
    INFO(to_string(c.mask) << " n_q=" << c.n_q << " n_k=" << c.n_k << " d=" << c.d);
    const auto q_count = static_cast<size_t>(s.n_q * s.heads * s.head_dim);
    const auto k_count = static_cast<size_t>(s.n_k * s.kv_heads * s.head_dim);
    DeviceBuffer q(q_count * 2), k(k_count * 2), v(k_count * 2), o(q_count * 2), d_o(q_count * 2), dq(q_count * 2);
    DeviceBuffer dk(k_count * 2), dv(k_count * 2), lse(static_cast<size_t>(s.n_q * s.heads) * 4);
    uint64_t seed = 0;
    for (DeviceBuffer* b : {&q, &k, &v, &d_o}) fill_normal_bf16(b->get(), b->bytes() / 2, ++seed, stream);
    for (DeviceBuffer* b : {&o, &lse, &dq, &dk, &dv}) poison(b->get(), b->bytes(), stream);
    AttentionForward forward(s, 0, q.get(), k.get(), v.get(), lse.get(), o.get());
    forward.run(stream);
    AttentionBackward backward(s, 0, q.get(), k.get(), v.get(), o.get(), d_o.get(), lse.get(), dq.get(), dk.get(),
                               dv.get());
    backward.run(stream);
    stream.sync();
    CHECK(check_forward(s, q.get(), k.get(), v.get(), o.get(), lse.get()).norm < kBf16Tolerance);
    CHECK(
        check_backward(s, q.get(), k.get(), v.get(), o.get(), d_o.get(), lse.get(), dq.get(), dk.get(), dv.get()).norm <
        kBf16Tolerance);
  }
}

TEST_CASE("rings over virtual or real ranks") {
  for (int ranks : {1, 2, 3, 4, 8}) {
    for (const bool causal : {false, true}) {
      for (Layout layout : {Layout::contiguous, Layout::zigzag, Layout::striped}) {
        ContextShape s;
        s.ranks = ranks;
        s.causal = causal;
        s.layout = layout;
        INFO("ranks " << ranks << " causal " << causal << " layout " << static_cast<int>(layout));
        CHECK(check_schedule(context_schedule("ring"), s).norm < kBf16Tolerance);
      }
    }
    for (int64_t period : {2048, 0}) {
      PiShape pi;
      pi.ranks = ranks;
      pi.period = period;
      INFO("pi ranks " << ranks << " period " << period);
      CHECK(check_pi(pi).norm < kBf16Tolerance);
    }
  }
}

TEST_CASE("gathers and head exchanges over virtual or real ranks") {
  struct Case {
    const char* schedule;
    int ranks, members;
    bool causal;
    Layout layout;
  };
  for (const Case& c :
       {Case{"all_gather", 1, 1, true, Layout::contiguous}, Case{"all_gather", 3, 1, false, Layout::contiguous},
        Case{"all_gather", 4, 1, true, Layout::contiguous}, Case{"all_gather", 4, 1, true, Layout::zigzag},
        Case{"ulysses", 1, 1, true, Layout::contiguous}, Case{"ulysses", 4, 4, false, Layout::contiguous},
        Case{"ulysses", 4, 4, true, Layout::contiguous}, Case{"usp", 4, 2, false, Layout::contiguous},
        Case{"usp", 4, 2, true, Layout::zigzag}, Case{"usp", 8, 2, true, Layout::striped},
        Case{"usp", 8, 4, true, Layout::zigzag}}) {
    ContextShape s;
    s.ranks = c.ranks;
    s.members = c.members;
    s.causal = c.causal;
    s.layout = c.layout;
    INFO(c.schedule << " ranks " << c.ranks << " members " << c.members << " causal " << c.causal << " layout "
                    << static_cast<int>(c.layout));
    CHECK(check_schedule(context_schedule(c.schedule), s).norm < kBf16Tolerance);
  }
}
#endif
