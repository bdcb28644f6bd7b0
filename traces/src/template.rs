//! Chat templates: from messages to the text a model was trained on.
//!
//! Models: Jinja as Hugging Face sets it up (blocks trimmed, loop controls, `raise_exception`, `tojson`, methods of
//! Python's strings and dictionaries). Does not model: tools, documents, `generation` blocks; `strftime_now` answers only
//! where a date is given, so that two runs give the same text.
//! Source: the chat template interface of Hugging Face transformers.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind, context};
use minijinja_contrib::pycompat::unknown_method_callback;

use crate::workload::{WorkloadError, WorkloadProblem};

/// Steps a template may take: some hundred times what a long conversation needs.
const FUEL: u64 = 50_000_000;

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Whoever sets the scene.
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// A calendar day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// Year.
    pub year: u32,
    /// Month, from 1.
    pub month: u32,
    /// Day, from 1.
    pub day: u32,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

impl Date {
    /// Reads `2026-11-22`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-').map(|p| p.parse::<u32>().ok());
        let date = Self { year: parts.next()??, month: parts.next()??, day: parts.next()?? };
        let known = (1..=9999).contains(&date.year) && (1..=12).contains(&date.month);
        (parts.next().is_none() && known && (1..=date.days_in_month()).contains(&date.day)).then_some(date)
    }

    const fn leap(self) -> bool {
        self.year.is_multiple_of(4) && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400))
    }

    const fn days_in_month(self) -> u32 {
        match self.month {
            2 => 28 + self.leap() as u32,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    /// Day of the week, Monday first, by Sakamoto's table.
    fn weekday(self) -> usize {
        const SHIFT: [u32; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
        let year = self.year - u32::from(self.month < 3);
        let sum = year + year / 4 - year / 100 + year / 400 + SHIFT[self.month as usize - 1] + self.day;
        (sum as usize + 6) % 7
    }

    /// The date in `strftime`'s words; a time of day is midnight.
    fn format(self, format: &str) -> Result<String, Error> {
        let (month, day) = (MONTHS[self.month as usize - 1], DAYS[self.weekday()]);
        let mut out = String::new();
        let mut letters = format.chars();
        while let Some(c) = letters.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            match letters.next() {
                Some('Y') => out += &self.year.to_string(),
                Some('y') => out += &format!("{:02}", self.year % 100),
                Some('m') => out += &format!("{:02}", self.month),
                Some('d') => out += &format!("{:02}", self.day),
                Some('e') => out += &format!("{:2}", self.day),
                Some('b' | 'h') => out += &month[..3],
                Some('B') => out += month,
                Some('a') => out += &day[..3],
                Some('A') => out += day,
                Some('H' | 'M' | 'S') => out += "00",
                Some('%') => out.push('%'),
                other => {
                    let message = format!("strftime_now: no field `%{}`", other.unwrap_or(' '));
                    return Err(Error::new(ErrorKind::InvalidOperation, message));
                }
            }
        }
        Ok(out)
    }
}

/// A template, checked.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    source: String,
    place: String,
    begin_end: [String; 2],
    date: Option<Date>,
}

impl ChatTemplate {
    /// A template from the file `place`; `begin_end` are the names of the tokens that begin and end a text.
    ///
    /// # Errors
    /// If it is no template, with its line.
    pub fn new(
        source: String,
        place: &str,
        begin_end: &[String; 2],
        date: Option<Date>,
    ) -> Result<Self, WorkloadError> {
        let template = Self { source, place: place.to_owned(), begin_end: begin_end.clone(), date };
        template
            .environment()
            .template_from_named_str("chat", &template.source)
            .map_err(|e| template.bad(&e))?;
        Ok(template)
    }

    fn bad(&self, error: &Error) -> WorkloadError {
        let line = error.line().map_or_else(String::new, |line| format!(" line {line}"));
        let place = format!("{}: chat template{line}", self.place);
        let message = match error.detail() {
            Some(detail) => format!("{}: {detail}", error.kind()),
            None => error.kind().to_string(),
        };
        let problem = WorkloadProblem::new(place, "", message);
        let problem = if error.kind() == ErrorKind::UnknownFunction && self.date.is_none() {
            problem.help("a template that asks for the date gets it from --date YYYY-MM-DD")
        } else {
            problem
        };
        problem.into()
    }

    fn environment(&self) -> Environment<'_> {
        let mut e = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        e.set_syntax(syntax.expect("Jinja's own delimiters"));
        e.set_fuel(Some(FUEL));
        e.set_unknown_method_callback(unknown_method_callback);
        e.add_function("raise_exception", |why: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, why))
        });
        if let Some(date) = self.date {
            e.add_function("strftime_now", move |format: String| date.format(&format));
        }
        e
    }

    /// The text of a conversation, open for the model's next answer.
    ///
    /// # Errors
    /// If the template refuses it or uses what is not there, with its line.
    pub fn render(&self, messages: &[(Role, String)]) -> Result<String, WorkloadError> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|(role, content)| context! { role => role.name(), content => content.as_str() })
            .collect();
        let [bos, eos] = &self.begin_end;
        let all = context! {
            messages => messages,
            add_generation_prompt => true,
            bos_token => bos.as_str(),
            eos_token => eos.as_str(),
        };
        let environment = self.environment();
        let template = environment.template_from_named_str("chat", &self.source).map_err(|e| self.bad(&e))?;
        template.render(all).map_err(|e| self.bad(&e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(source: &str, date: Option<&str>, messages: &[(Role, &str)]) -> Result<String, String> {
        let ends = ["<s>".to_owned(), "</s>".to_owned()];
        let messages: Vec<(Role, String)> = messages.iter().map(|(r, t)| (*r, (*t).to_owned())).collect();
        ChatTemplate::new(source.to_owned(), "file", &ends, date.and_then(Date::parse))
            .and_then(|t| t.render(&messages))
            .map_err(|e| e.to_string())
    }

    #[test]
    fn templates_as_models_carry_them() {
        // The shapes of ChatML, of Llama 3 (date, blocks), and of one that checks roles with a namespace.
        let chatml = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ \
                      '<|im_start|>system\\nYou help.<|im_end|>\\n' }}{% endif %}{{'<|im_start|>' + message['role'] + \
                      '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ \
                      '<|im_start|>assistant\\n' }}{% endif %}";
        let text = "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
        assert_eq!(rendered(chatml, None, &[(Role::User, "Hi")]).as_deref(), Ok(text));
        let dated = "{{- bos_token }}\n{%- if strftime_now is defined %}\n    {%- set day = strftime_now('%d %b %Y, %A') \
                     %}\n{%- else %}\n    {%- set day = 'unknown' %}\n{%- endif %}\n{{- day }}\n{%- for m in messages \
                     %}\n    {{- m.content | trim | upper }}{{ m.content.strip().split(' ')[0] }}\n{%- endfor %}";
        assert_eq!(
            rendered(dated, Some("2024-02-29"), &[(Role::User, " a b ")]).as_deref(),
            Ok("<s>29 Feb 2024, ThursdayA Ba")
        );
        assert_eq!(rendered(dated, None, &[(Role::User, "a")]).as_deref(), Ok("<s>unknownAa"));
        let strict = "{% set ns = namespace(n=0) %}\n{% for m in messages %}\n  {% set ns.n = ns.n + 1 %}\n  {% if \
                      m.role == 'system' %}\n    {% continue %}\n  {% endif %}\n  {% if (ns.n % 2 == 1) != (m.role == \
                      'user') %}\n    {{ raise_exception('roles must alternate') }}\n  {% endif %}\n{% endfor %}\n{{ ns.n \
                      }} {{ messages[0] | tojson }}";
        assert_eq!(
            rendered(strict, None, &[(Role::User, "x")]).as_deref(),
            Ok("1 {\"role\": \"user\", \"content\": \"x\"}")
        );
        let error = rendered(strict, None, &[(Role::User, "x"), (Role::User, "y")]).expect_err("twice");
        assert!(
            error.starts_with("file: chat template line 8: ") && error.contains("must alternate"),
            "{error}"
        );
    }

    #[test]
    fn what_is_not_supported_names_its_line() {
        for (source, line, part) in [
            ("a\n{% generation %}x{% endgeneration %}", 2, "generation"),
            ("a\nb\n{{ nosuch(1) }}", 3, "nosuch"),
            ("{{ strftime_now('%Y') }}", 1, "strftime_now"),
            (
                "{% for i in range(100000) %}{% for j in range(100000) %}{{ i }}{% endfor %}{% endfor %}",
                1,
                "fuel",
            ),
        ] {
            let error = rendered(source, None, &[]).expect_err(source);
            assert!(error.contains(&format!("line {line}")) && error.contains(part), "{source}: {error}");
        }
        let error = rendered("{{ strftime_now('%Y') }}", None, &[]).expect_err("no date");
        assert!(error.contains("--date"), "{error}");
        assert!(rendered("{{ strftime_now('%Q') }}", Some("2026-01-01"), &[]).is_err());
    }

    #[test]
    fn dates_are_days_there_are() {
        for bad in ["", "2026", "2026-13-01", "2026-02-29", "2026-00-10", "2026-1-1-1", "x-1-1"] {
            assert_eq!(Date::parse(bad), None, "{bad}");
        }
        for (text, day) in [("2026-11-22", "Sun"), ("2000-02-29", "Tue"), ("1999-12-31", "Fri")] {
            assert_eq!(Date::parse(text).expect(text).format("%a").expect("known"), day);
        }
    }
}
