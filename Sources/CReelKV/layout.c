// The layout of what callers hand over and are handed: programs that were compiled against one version of the header must go on
// working with every later one, so nothing below may ever change. A later version adds members at the end, behind what is padding
// now, and with them a new size.
#include "reelkv.h"

#define SIZE(type, size) _Static_assert(sizeof(type) == (size), #type " has another size")
#define MEMBER(type, member, offset) _Static_assert(offsetof(type, member) == (offset), #type "." #member " lies elsewhere")

_Static_assert(sizeof(void *) == 8 && sizeof(size_t) == 8, "the interface is laid out for 64-bit systems");

// Structs that may grow.
SIZE(reelkv_store_options, 24);
MEMBER(reelkv_store_options, page_tokens, 8);
MEMBER(reelkv_store_options, volume_bytes_max, 16);

SIZE(reelkv_layer_geometry, 64);
MEMBER(reelkv_layer_geometry, kv_heads, 8);
MEMBER(reelkv_layer_geometry, key_dim, 12);
MEMBER(reelkv_layer_geometry, value_dim, 16);
MEMBER(reelkv_layer_geometry, rotary_pairing, 20);
MEMBER(reelkv_layer_geometry, sliding_window, 24);
MEMBER(reelkv_layer_geometry, rotary_inverse_frequencies, 32);
MEMBER(reelkv_layer_geometry, rotary_pair_count, 40);
MEMBER(reelkv_layer_geometry, rotary_sections, 48);

SIZE(reelkv_tenant_key, 40);
MEMBER(reelkv_tenant_key, key, 8);

SIZE(reelkv_model, 72);
MEMBER(reelkv_model, name, 8);
MEMBER(reelkv_model, fingerprint, 16);
MEMBER(reelkv_model, dtype, 48);
MEMBER(reelkv_model, layers, 56);
MEMBER(reelkv_model, layer_count, 64);

SIZE(reelkv_tokens, 56);
MEMBER(reelkv_tokens, ids, 8);
MEMBER(reelkv_tokens, count, 16);
MEMBER(reelkv_tokens, media, 24);
MEMBER(reelkv_tokens, media_count, 32);
MEMBER(reelkv_tokens, positions, 40);
MEMBER(reelkv_tokens, position_streams, 48);

SIZE(reelkv_acceptance, 16);
MEMBER(reelkv_acceptance, key_error_max, 8);
MEMBER(reelkv_acceptance, value_error_max, 12);

SIZE(reelkv_prefix_info, 72);
MEMBER(reelkv_prefix_info, token_count, 8);
MEMBER(reelkv_prefix_info, stored_bytes, 16);
MEMBER(reelkv_prefix_info, engine_state_bytes, 24);
MEMBER(reelkv_prefix_info, key_error, 32);
MEMBER(reelkv_prefix_info, value_error, 36);
MEMBER(reelkv_prefix_info, refused_key_error, 40);
MEMBER(reelkv_prefix_info, refused_value_error, 44);
MEMBER(reelkv_prefix_info, stop, 48);
MEMBER(reelkv_prefix_info, is_exact, 52);
MEMBER(reelkv_prefix_info, has_engine_state, 56);
MEMBER(reelkv_prefix_info, dtype, 60);
MEMBER(reelkv_prefix_info, layer_count, 64);

SIZE(reelkv_restore_options, 40);
MEMBER(reelkv_restore_options, first_layer, 8);
MEMBER(reelkv_restore_options, layer_count, 12);
MEMBER(reelkv_restore_options, first_token, 16);
MEMBER(reelkv_restore_options, token_count, 24);
MEMBER(reelkv_restore_options, threads, 32);

SIZE(reelkv_writer_options, 64);
MEMBER(reelkv_writer_options, tenant, 8);
MEMBER(reelkv_writer_options, profile, 16);
MEMBER(reelkv_writer_options, start, 24);
MEMBER(reelkv_writer_options, protected_tokens, 32);
MEMBER(reelkv_writer_options, protected_count, 40);
MEMBER(reelkv_writer_options, checks_token_count, 48);
MEMBER(reelkv_writer_options, replaces, 52);
MEMBER(reelkv_writer_options, token_count, 56);

SIZE(reelkv_writer_info, 32);
MEMBER(reelkv_writer_info, token_count, 8);
MEMBER(reelkv_writer_info, reused_token_count, 16);
MEMBER(reelkv_writer_info, stored_bytes, 24);

SIZE(reelkv_finish_options, 64);
MEMBER(reelkv_finish_options, engine_state, 8);
MEMBER(reelkv_finish_options, engine_state_bytes, 16);
MEMBER(reelkv_finish_options, frames, 24);
MEMBER(reelkv_finish_options, frame_count, 32);
MEMBER(reelkv_finish_options, provenance, 40);
MEMBER(reelkv_finish_options, provenance_count, 48);
MEMBER(reelkv_finish_options, pin, 56);

SIZE(reelkv_settings, 40);
MEMBER(reelkv_settings, quota_bytes, 8);
MEMBER(reelkv_settings, free_bytes_min, 16);
MEMBER(reelkv_settings, unused_seconds_max, 24);
MEMBER(reelkv_settings, policy, 32);

// Structs that stay as they are.
SIZE(reelkv_media_span, 56);
MEMBER(reelkv_media_span, digest, 0);
MEMBER(reelkv_media_span, first_token, 32);
MEMBER(reelkv_media_span, count, 40);
MEMBER(reelkv_media_span, media_offset, 48);

SIZE(reelkv_tensor, 48);
MEMBER(reelkv_tensor, data, 0);
MEMBER(reelkv_tensor, head_stride, 8);
MEMBER(reelkv_tensor, token_stride, 16);
MEMBER(reelkv_tensor, channel_stride, 24);
MEMBER(reelkv_tensor, heads, 32);
MEMBER(reelkv_tensor, tokens, 36);
MEMBER(reelkv_tensor, dim, 40);
MEMBER(reelkv_tensor, dtype, 44);

SIZE(reelkv_layer, 96);
MEMBER(reelkv_layer, key, 0);
MEMBER(reelkv_layer, value, 48);

SIZE(reelkv_frame, 24);
MEMBER(reelkv_frame, first_token, 0);
MEMBER(reelkv_frame, token_count, 8);
MEMBER(reelkv_frame, seconds, 16);
