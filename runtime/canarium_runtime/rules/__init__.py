"""Rules for the values of requests, compiled once from `spec.serving.validation` and the model's specs.

    rules = Rules.compile(config.validation_spec, model, metrics.violations)     when the model is loaded; RuleError
    validate(model, tensors, outputs, rules.reader)                             the codecs: JSON values of other types
    inputs, notes = rules.apply(inputs)                                         each request; ServingError INVALID

The first look at a request is as cheap as can be and only says whether something might be wrong (`holds`); which
element of which feature is looked for afterwards (`faults`), and only then.
"""
