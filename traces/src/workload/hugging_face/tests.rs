//! Configurations as published, and what is wrong with changed ones.

use super::super::preset::model_preset;
use super::*;

const LLAMA_1B: &str = r#"{
  "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
  "bos_token_id": 128000, "eos_token_id": 128001, "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048,
  "initializer_range": 0.02, "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": false,
  "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8,
  "pretraining_tp": 1, "rms_norm_eps": 1e-05,
  "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
"original_max_position_embeddings": 8192, "rope_type": "llama3"},
  "rope_theta": 500000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16", "use_cache": true,
  "vocab_size": 128256
}"#;

const QWEN_1B5: &str = r#"{
  "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "hidden_act": "silu", "hidden_size": 1536,
  "intermediate_size": 8960, "max_position_embeddings": 32768, "max_window_layers": 21, "model_type": "qwen2",
  "num_attention_heads": 12, "num_hidden_layers": 28, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
  "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": true, "use_sliding_window": false,
  "vocab_size": 151936
}"#;

fn refused(text: &str) -> String {
    read(text, "m.json").expect_err("is refused").to_string()
}

#[test]
fn published_files_give_the_presets() {
    for (text, name) in [
        (LLAMA_1B, "llama-3.2-1b"),
        (QWEN_1B5, "qwen2.5-1.5b"),
        (GEMMA_2_2B, "gemma-2-2b"),
        (GEMMA_3_1B, "gemma-3-1b"),
    ] {
        let expected = model_preset(name).expect("preset").spec;
        let found = read(text, &format!("{name}.json")).expect("reads");
        // The file stem of "llama-3.2-1b.json" is the preset's name, so all fields must agree.
        assert_eq!(found, expected);
    }
}

#[test]
fn a_model_type_stands_in_for_a_missing_architecture() {
    let bare = QWEN_1B5.replace("\"architectures\": [\"Qwen2ForCausalLM\"], ", "");
    assert!(!bare.contains("architectures"));
    assert_eq!(read(&bare, "m.json"), read(QWEN_1B5, "m.json"));
    assert!(refused(&bare.replace("qwen2", "gpt2")).contains("m.json:3: architectures: expected a list"));
}

#[test]
fn every_layer_of_a_phi_has_its_window() {
    let text = r#"{"architectures": ["Phi3ForCausalLM"], "attention_bias": false, "hidden_act": "silu",
  "hidden_size": 3072, "intermediate_size": 8192, "max_position_embeddings": 4096, "model_type": "phi3",
  "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32, "rms_norm_eps": 1e-05,
  "original_max_position_embeddings": 4096, "rope_scaling": null, "rope_theta": 10000.0, "sliding_window": 2047,
  "tie_word_embeddings": false, "vocab_size": 32064}"#;
    let expected = model_preset("phi-3-mini").expect("preset").spec;
    assert_eq!(read(text, "phi-3-mini/config.json").expect("reads"), expected);
    assert_eq!(expected.max_position, 4096);
    let window = |positions| Some(Window { positions, period: 0, local_theta: None });
    assert_eq!(expected.extras.window, window(2047));
    let with = |more: &str| text.replace("\"sliding_window\": 2047", more);
    let read = |more: &str| read(&with(more), "m.json").expect("reads").extras.window;
    assert_eq!(read("\"sliding_window\": null"), None);
    assert_eq!(read("\"sliding_window\": 4096"), None);
    assert_eq!(read("\"sliding_window\": 4095"), window(4095));
    assert!(refused(&with("\"sliding_window\": 0")).contains("sliding_window: expected from 1"));
}

const GEMMA_2_2B: &str = r#"{
  "architectures": ["Gemma2ForCausalLM"], "attention_bias": false, "attn_logit_softcapping": 50.0,
  "final_logit_softcapping": 30.0, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
  "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304, "intermediate_size": 9216,
  "max_position_embeddings": 8192, "model_type": "gemma2", "num_attention_heads": 8, "num_hidden_layers": 26,
  "num_key_value_heads": 4, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_theta": 10000.0,
  "sliding_window": 4096, "vocab_size": 256000
}"#;

const GEMMA_3_1B: &str = r#"{
  "architectures": ["Gemma3ForCausalLM"], "attention_bias": false, "attn_logit_softcapping": null,
  "final_logit_softcapping": null, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152,
  "intermediate_size": 6912, "max_position_embeddings": 32768, "model_type": "gemma3_text",
  "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1, "query_pre_attn_scalar": 256,
  "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000, "rope_scaling": null, "rope_theta": 1000000,
  "sliding_window": 512, "sliding_window_pattern": 6, "vocab_size": 262144
}"#;

const MINI_LM: &str = r#"{
  "architectures": ["BertModel"], "hidden_act": "gelu", "hidden_size": 384, "intermediate_size": 1536,
  "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "model_type": "bert", "num_attention_heads": 12,
  "num_hidden_layers": 6, "position_embedding_type": "absolute", "type_vocab_size": 2, "vocab_size": 30522
}"#;

#[test]
fn families_beyond_the_plain_block_count_their_published_parameters() {
    // The last without its pooler, which nothing uses: 22,713,216 with it.
    for (text, params) in [(GEMMA_2_2B, 2_614_341_888), (GEMMA_3_1B, 999_885_952), (MINI_LM, 22_565_376)] {
        assert_eq!(read(text, "m.json").expect("reads").params(), params);
    }
    let two = read(GEMMA_2_2B, "m.json").expect("reads");
    assert_eq!((two.extras.embed_scale, two.extras.attention_scale), (Some(48.0), None));
    assert_eq!((two.extras.attention_cap, two.extras.logit_cap), (Some(50.0), Some(30.0)));
    assert_eq!(two.extras.window, Some(Window { positions: 4096, period: 2, local_theta: None }));
    assert!(two.tied_embedding && two.extras.post_norms && two.extras.gate_gelu);
    let scaled = GEMMA_2_2B.replace("\"query_pre_attn_scalar\": 256", "\"query_pre_attn_scalar\": 144");
    let scale = read(&scaled, "m.json").expect("reads").extras.attention_scale.expect("another");
    assert!((scale - 1.0 / 12.0).abs() < 1e-12);
    let three = read(GEMMA_3_1B, "m.json").expect("reads");
    assert_eq!((three.extras.attention_cap, three.extras.logit_cap, three.qk_norm), (None, None, true));
    let window = Window { positions: 512, period: 6, local_theta: Some(10_000.0) };
    assert_eq!(three.extras.window, Some(window));
    let bert = read(MINI_LM, "m.json").expect("reads");
    assert_eq!(bert.extras.encoder, Some(Encoder { token_types: 2 }));
    assert!(bert.qkv_bias && !bert.tied_embedding);
    for (text, from, to, says) in [
        (
            GEMMA_2_2B,
            "\"hidden_activation\": \"gelu_pytorch_tanh\"",
            "\"hidden_activation\": \"silu\"",
            "hidden_activation",
        ),
        (
            GEMMA_2_2B,
            "\"sliding_window\": 4096",
            "\"sliding_window\": 0",
            "sliding_window: expected from 1 to",
        ),
        (GEMMA_2_2B, "50.0", "-1.0", "attn_logit_softcapping: expected from"),
        (GEMMA_3_1B, "\"rope_scaling\": null", "\"layer_types\": [\"full_attention\"]", "layer 0 is"),
        (MINI_LM, "\"absolute\"", "\"relative_key\"", "position_embedding_type"),
        (MINI_LM, "\"type_vocab_size\": 2", "\"type_vocab_size\": 0", "type_vocab_size"),
    ] {
        assert!(text.contains(from), "{from}");
        let error = refused(&text.replace(from, to));
        assert!(error.contains(says), "{to}: {error}");
    }
}

const WHISPER_SMALL: &str = r#"{
  "activation_function": "gelu", "architectures": ["WhisperForConditionalGeneration"], "d_model": 768,
  "decoder_attention_heads": 12, "decoder_ffn_dim": 3072, "decoder_layers": 12, "encoder_attention_heads": 12,
  "encoder_ffn_dim": 3072, "encoder_layers": 12, "is_encoder_decoder": true, "max_length": 448,
  "max_source_positions": 1500, "max_target_positions": 448, "model_type": "whisper", "num_hidden_layers": 12,
  "num_mel_bins": 80, "scale_embedding": false, "use_cache": true, "vocab_size": 51865
}"#;

const SIGLIP_SO400M: &str = r#"{
  "architectures": ["SiglipModel"], "initializer_factor": 1.0, "model_type": "siglip",
  "text_config": {"hidden_size": 1152, "intermediate_size": 4304, "model_type": "siglip_text_model",
"num_attention_heads": 16, "num_hidden_layers": 27, "vocab_size": 32000},
  "vision_config": {"hidden_size": 1152, "image_size": 384, "intermediate_size": 4304,
"model_type": "siglip_vision_model", "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14}
}"#;

const VIT_BASE: &str = r#"{
  "architectures": ["ViTModel"], "hidden_act": "gelu", "hidden_size": 768, "image_size": 224,
  "intermediate_size": 3072, "layer_norm_eps": 1e-12, "model_type": "vit", "num_attention_heads": 12,
  "num_channels": 3, "num_hidden_layers": 12, "patch_size": 16, "qkv_bias": true
}"#;

#[test]
fn encoders_of_images_and_sound_count_their_published_parameters() {
    for (text, name, params) in
        [(WHISPER_SMALL, "whisper-small-encoder", 88_154_112), (SIGLIP_SO400M, "siglip-so400m", 428_225_600)]
    {
        let spec = read(text, &format!("{name}/config.json")).expect("reads");
        assert_eq!((spec.params(), &spec), (params, &model_preset(name).expect("preset").spec));
    }
    // Without the pooler, which nothing uses.
    let vit = read(VIT_BASE, "m.json").expect("reads");
    assert_eq!((vit.params(), vit.max_position), (85_798_656, 197));
    let class = Stem::Patches { values: 768, class: true, head_params: 0 };
    assert_eq!((vit.extras.stem, vit.extras.gelu_tanh), (Some(class), false));
    // By its type alone, with nothing nested and no head.
    let flat = r#"{"model_type": "siglip_vision_model", "vision_use_head": false, "hidden_act": "gelu"}"#;
    let base = read(flat, "m.json").expect("reads");
    let plain = Stem::Patches { values: 768, class: false, head_params: 0 };
    assert_eq!((base.hidden, base.max_position, base.extras.stem), (768, 196, Some(plain)));
    assert!(!base.extras.gelu_tanh);
    for (text, from, to, says) in [
        (WHISPER_SMALL, "\"gelu\"", "\"relu\"", "activation_function: \"relu\" is not supported"),
        (
            WHISPER_SMALL,
            "\"num_mel_bins\": 80",
            "\"num_mel_bins\": 81",
            "num_mel_bins: expected a multiple of 16",
        ),
        (
            SIGLIP_SO400M,
            "\"patch_size\": 14",
            "\"patch_size\": 400",
            "patch_size: expected from 1 to image_size",
        ),
        (VIT_BASE, "\"num_attention_heads\": 12", "\"num_attention_heads\": 11", "768 is not a multiple"),
        (VIT_BASE, "\"patch_size\": 16", "\"patch_size\": 0", "patch_size"),
    ] {
        assert!(text.contains(from), "{from}");
        let error = refused(&text.replace(from, to));
        assert!(error.contains(says), "{to}: {error}");
    }
}

#[test]
#[allow(clippy::cast_possible_truncation, reason = "rounding to fp32 is the point")]
fn a_long_phi_takes_its_factors_by_the_positions_of_a_run() {
    let factors: Vec<String> = (0..48).map(|i| format!("{}.5", i + 1)).collect();
    let long = format!("[{}]", (0..48).map(|i| format!("{}.25", 3 * i + 2)).collect::<Vec<_>>().join(","));
    let text = |short: &str| {
        format!(
            r#"{{"architectures": ["Phi3ForCausalLM"], "hidden_act": "silu", "hidden_size": 3072,
  "intermediate_size": 8192, "max_position_embeddings": 131072, "num_attention_heads": 32, "num_hidden_layers": 32,
  "num_key_value_heads": 32, "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-05, "rope_scaling":
  {{"long_factor": {long}, "short_factor": {short}, "type": "longrope"}}, "rope_theta": 10000.0,
  "sliding_window": 262144, "tie_word_embeddings": false, "vocab_size": 32064}}"#
        )
    };
    let spec = read(&text(&format!("[{}]", factors.join(","))), "m.json").expect("reads");
    assert_eq!((spec.max_position, spec.extras.rope_factors.len()), (131_072, 48));
    // The published factor on cosine and sine is the root of 1 + ln 32 / ln 4096 = 1 + 5 / 12.
    let scale = spec.extras.attention_scale.expect("stretched");
    assert!((scale * 96f64.sqrt() - (1.0 + 5.0 / 12.0)).abs() < 1e-12, "{scale}");
    // Each angle is the base's power over the factor; the longer list from the first position beyond the original.
    for (positions, first, step) in [(1, 1.5, 1.0), (4096, 1.5, 1.0), (4097, 2.25, 3.0), (131_072, 2.25, 3.0)]
    {
        let spec = spec.at(positions);
        let table = crate::image::inverse_frequencies(&spec);
        for (i, angle) in (0u32..48).zip(table) {
            let expected = 10_000f64.powf(-f64::from(2 * i) / 96.0) / (first + step * f64::from(i));
            assert!((f64::from(angle) / expected - 1.0).abs() < 1e-6, "{positions} {i}: {angle}");
        }
        assert_eq!(spec.extras.attention_scale, Some(scale), "{positions}");
    }
    let other =
        text(&format!("[{}]", factors.join(","))).replace("\"type\"", "\"attention_factor\": 1.5, \"type\"");
    let given = read(&other, "m.json").expect("reads").extras.attention_scale.expect("given");
    assert!((given * 96f64.sqrt() - 2.25).abs() < 1e-12, "{given}");
    let newer = text(&format!("[{}]", factors.join(","))).replace("rope_scaling", "rope_parameters");
    assert_eq!(read(&newer, "m.json").expect("reads").extras, spec.extras);
    let bare = newer.replace("long_factor", "other_factor");
    assert!(refused(&bare).contains("rope_parameters: long_factor: expected a list"), "{}", refused(&bare));
    assert!(refused(&text("[1.0]")).contains("expected 48 factors, found 1"));
    assert!(refused(&text("\"x\"")).contains("short_factor: expected a list"));
    let llama = LLAMA_1B.replace("\"llama3\"", "\"longrope\"");
    assert!(refused(&llama).contains("rope type `longrope` is not supported"));
}

#[test]
fn what_changes_the_arithmetic_and_is_not_modelled_is_named() {
    for (text, from, to, says) in [
        (
            QWEN_1B5,
            "\"use_sliding_window\": false",
            "\"use_sliding_window\": true",
            "m.json:5: use_sliding_window: true is not supported",
        ),
        (LLAMA_1B, "\"llama3\"", "\"yarn\"", "rope type `yarn` is not supported"),
        (LLAMA_1B, "\"silu\"", "\"gelu\"", "hidden_act: \"gelu\" is not supported"),
        (LLAMA_1B, "\"mlp_bias\": false", "\"mlp_bias\": true", "mlp_bias: true"),
        (LLAMA_1B, "LlamaForCausalLM", "LamaForCausalLM", "did you mean `LlamaForCausalLM`?"),
        (
            LLAMA_1B,
            "\"hidden_size\": 2048",
            "\"hidden_size\": 0",
            "hidden_size: expected from 64 to 65536, found 0",
        ),
        (
            LLAMA_1B,
            "\"hidden_size\": 2048",
            "\"hidden_size\": \"big\"",
            "hidden_size: expected a whole number",
        ),
        (LLAMA_1B, "\"vocab_size\": 128256", "\"vocab_size\": 99999999", "vocab_size"),
        (LLAMA_1B, "\"num_key_value_heads\": 8", "\"num_key_value_heads\": 7", "num_key_value_heads"),
        (LLAMA_1B, "\"num_hidden_layers\": 16, ", "", "num_hidden_layers: is missing"),
        (
            QWEN_1B5,
            "\"num_attention_heads\": 12",
            "\"num_attention_heads\": 11",
            "hidden_size: 1536 is not a multiple",
        ),
    ] {
        assert!(text.contains(from), "{from}");
        let error = refused(&text.replace(from, to));
        assert!(error.contains(says), "{to}: {error}");
    }
}

#[test]
fn what_is_not_a_config_is_refused_with_its_line() {
    assert!(refused("[1,2").starts_with("m.json:1:4: not valid JSON"), "{}", refused("[1,2"));
    assert!(refused("[1,2]").contains("expected a JSON object"));
    assert!(refused("{}").contains("architectures: expected a list with a name"));
    let zero = refused("{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":0}");
    assert!(zero.contains("num_attention_heads: is missing"), "{zero}");
    assert!(refused(&"[".repeat(100_000)).contains("not valid JSON"));
}
