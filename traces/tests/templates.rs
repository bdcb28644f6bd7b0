//! Chat templates of the families whose vocabularies are SentencePiece's: what their published prompt formats ask for,
//! with the constructs their templates are made of.

use traces::template::{ChatTemplate, Role};

type Said<'a> = &'a [(Role, &'a str)];

fn rendered(template: &str, [bos, eos]: [&str; 2], said: Said) -> Result<String, String> {
    let names = [bos.to_owned(), eos.to_owned()];
    let messages: Vec<(Role, String)> = said.iter().map(|(role, text)| (*role, (*text).to_owned())).collect();
    ChatTemplate::new(template.to_owned(), "file", &names, None)
        .and_then(|t| t.render(&messages))
        .map_err(|e| e.to_string())
}

const LLAMA: [&str; 2] = ["<s>", "</s>"];
const TALK: Said = &[
    (Role::System, "Be brief."),
    (Role::User, "  Hi \n"),
    (Role::Assistant, " Hello! "),
    (Role::User, "Bye"),
];

/// Slices of messages, a flag that is text or false, alternating roles, Python's `strip`.
const LLAMA_2: &str = "{% set system = messages[0]['content'] if messages[0]['role'] == 'system' else false %}{% set turns = \
                       messages[1:] if system else messages %}{% for turn in turns %}{% if (turn['role'] == 'user') != \
                       (loop.index0 % 2 == 0) %}{{ raise_exception('roles must take turns, beginning with user') }}{% endif \
                       %}{% set text = turn['content'] %}{% if loop.index0 == 0 and system != false %}{% set text = \
                       '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + text %}{% endif %}{% if turn['role'] == 'user' %}{{ \
                       bos_token + '[INST] ' + text.strip() + ' [/INST]' }}{% elif turn['role'] == 'assistant' %}{{ ' ' + \
                       text.strip() + ' ' + eos_token }}{% endif %}{% endfor %}";

#[test]
fn llama_2() {
    assert_eq!(
        rendered(LLAMA_2, LLAMA, TALK).as_deref(),
        Ok("<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n  Hi [/INST] Hello! </s><s>[INST] Bye [/INST]")
    );
    assert_eq!(rendered(LLAMA_2, LLAMA, &[(Role::User, " Hi ")]).as_deref(), Ok("<s>[INST] Hi [/INST]"));
    let error = rendered(LLAMA_2, LLAMA, &[(Role::Assistant, "Hi")]).expect_err("the model begins");
    assert!(error.contains("roles must take turns, beginning with user"), "{error}");
}

/// A namespace that counts, a system text that joins the last question, lists of the wanted kind of message.
const MISTRAL: &str = "{%- if messages[0].role == 'system' %}\n  {%- set system, turns = messages[0].content, messages[1:] \
                       %}\n{%- else %}\n  {%- set turns = messages %}\n{%- endif %}\n{%- set asked = turns | \
                       selectattr('role', 'equalto', 'user') | list %}\n{%- set ns = namespace(n=0) %}\n{%- for turn in turns \
                       if turn.role not in ['tool', 'tool_results'] %}\n  {%- if (turn.role == 'user') != (ns.n % 2 == 0) \
                       %}\n    {{- raise_exception('after ' ~ ns.n ~ ' turns comes another') }}\n  {%- endif %}\n  {%- set ns.n \
                       = ns.n + 1 %}\n{%- endfor %}\n{{- bos_token }}\n{%- for turn in turns %}\n  {%- if turn.role == 'user' \
                       %}\n    {%- if loop.last and system is defined %}\n      {{- '[INST] ' + system + '\\n\\n' + \
                       turn.content + '[/INST]' }}\n    {%- else %}\n      {{- '[INST] ' + turn.content + '[/INST]' }}\n    \
                       {%- endif %}\n  {%- else %}\n    {{- ' ' + turn.content | trim + eos_token }}\n  {%- endif %}\n{%- \
                       endfor %}\n{%- if asked | length > 9 %}!{% endif %}";

#[test]
fn mistral() {
    assert_eq!(
        rendered(MISTRAL, LLAMA, TALK).as_deref(),
        Ok("<s>[INST]   Hi \n[/INST] Hello!</s>[INST] Be brief.\n\nBye[/INST]")
    );
    let twice = [(Role::User, "a"), (Role::User, "b")];
    let error = rendered(MISTRAL, LLAMA, &twice).expect_err("twice");
    assert!(error.contains("after 1 turns comes another"), "{error}");
}

/// Tags by role, lines kept by string escapes, an end only where nothing is to follow.
const PHI_3: &str = "{% for m in messages %}{% if m['role'] in ['system', 'user', 'assistant'] %}{{ '<|' + m['role'] + \
                     '|>\\n' + m['content'] + '<|end|>\\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ \
                     '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}";

#[test]
fn phi_3() {
    assert_eq!(
        rendered(PHI_3, ["<s>", "<|endoftext|>"], TALK).as_deref(),
        Ok(
            "<|system|>\nBe brief.<|end|>\n<|user|>\n  Hi \n<|end|>\n<|assistant|>\n Hello! <|end|>\n<|user|>\nBye<|end|>\n\
            <|assistant|>\n"
        )
    );
}

/// Another name for the model, a system that is refused, trimmed text.
const GEMMA_2: &str = "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif \
                       %}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ \
                       raise_exception('turns') }}{% endif %}{% if (m['role'] == 'assistant') %}{% set who = 'model' %}{% else \
                       %}{% set who = m['role'] %}{% endif %}{{ '<start_of_turn>' + who + '\\n' + m['content'] | trim + \
                       '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}";
/// A system text before the first question; contents that may be text or lists of parts.
const GEMMA_3: &str = "{{ bos_token }}\n{%- if messages[0]['role'] == 'system' -%}\n    {%- if messages[0]['content'] is string \
                       -%}\n        {%- set first = messages[0]['content'] + '\\n\\n' -%}\n    {%- else -%}\n        {%- set \
                       first = messages[0]['content'][0]['text'] + '\\n\\n' -%}\n    {%- endif -%}\n    {%- set turns = \
                       messages[1:] -%}\n{%- else -%}\n    {%- set first = '' -%}\n    {%- set turns = messages -%}\n{%- endif \
                       -%}\n{%- for m in turns -%}\n    {%- set who = 'model' if m['role'] == 'assistant' else m['role'] -%}\n    \
                       {{ '<start_of_turn>' + who + '\\n' + (first if loop.first else '') }}\n    {%- if m['content'] is string \
                       -%}\n        {{ m['content'] | trim }}\n    {%- elif m['content'] is iterable -%}\n        {%- for part \
                       in m['content'] -%}\n            {{ part['text'] | trim }}\n        {%- endfor -%}\n    {%- else -%}\n        \
                       {{ raise_exception('neither text nor parts') }}\n    {%- endif -%}\n    {{ '<end_of_turn>\\n' }}\n{%- \
                       endfor -%}\n{%- if add_generation_prompt -%}\n    {{ '<start_of_turn>model\\n' }}\n{%- endif -%}\n";

#[test]
fn gemma() {
    let names = ["<bos>", "<eos>"];
    let turns = "<start_of_turn>model\nHello!<end_of_turn>\n<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n";
    assert_eq!(
        rendered(GEMMA_2, names, &TALK[1..]),
        Ok(format!("<bos><start_of_turn>user\nHi<end_of_turn>\n{turns}"))
    );
    assert!(rendered(GEMMA_2, names, TALK).expect_err("a system").contains("no system here"));
    assert_eq!(
        rendered(GEMMA_3, names, TALK),
        Ok(format!("<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n{turns}"))
    );
    assert_eq!(
        rendered(GEMMA_3, names, &TALK[1..]),
        Ok(format!("<bos><start_of_turn>user\nHi<end_of_turn>\n{turns}"))
    );
}
