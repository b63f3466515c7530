defmodule Exile.MixProject do
  use Mix.Project

  # Must equal the version in Cargo.toml: the library only works with its own version of Exile.
  @version "0.1.0"

  # The oldest supported versions are those of Debian 12, since script/matrix cannot test older
  # ones. The oldest Rust is in Cargo.toml: 1.85, which Debian 12 and 13 have and which is the
  # first with the 2024 edition.
  @elixir "~> 1.14"
  @otp 25

  if String.to_integer(System.otp_release()) < @otp do
    Mix.raise("Exile needs Erlang/OTP #{@otp} or later, and this is #{System.otp_release()}")
  end

  @guides ~w(
    guides/getting_started.md
    guides/recipes.md
    guides/back_pressure.md
    guides/ending_commands.md
    guides/long_lived_programs.md
    guides/genservers.md
    guides/troubleshooting.md
    guides/deployment.md
    guides/coming_from_other_libraries.md
    guides/coming_from_exile_0_14.md
  )
  @about ~w(CHANGELOG.md ARCHITECTURE.md RELEASE.md bench/NOTES.md LICENSE)

  def project do
    [
      app: :exile,
      version: @version,
      elixir: @elixir,
      elixirc_paths: elixirc_paths(Mix.env()),
      test_ignore_filters: [&String.starts_with?(&1, ["test/soak/", "test/support/"])],
      start_permanent: Mix.env() == :prod,
      # The task that runs cargo is part of this project, so it must run after the compiler that
      # compiles it. The library is only needed when Exile runs.
      compilers: Mix.compilers() ++ [:exile],
      deps: deps(Mix.env()),
      name: "Exile",
      description: "Runs programs and streams data in and out of them with back-pressure",
      package: package(),
      docs: docs()
    ]
  end

  def application do
    [
      mod: {Exile.Runtime.Application, []},
      extra_applications: [:logger]
    ]
  end

  defp elixirc_paths(:test), do: ["lib", "test/support"]
  defp elixirc_paths(_env), do: ["lib"]

  # Only the environment for the documentation has a dependency, so that Exile can be built, run
  # and tested where no packages can be fetched. To build the documentation:
  #
  #     MIX_ENV=docs mix do deps.get, docs
  defp deps(:docs), do: [{:ex_doc, "~> 0.34"}]
  defp deps(_env), do: []

  defp package do
    [
      licenses: ["Apache-2.0"],
      # script/package --check compiles from only these files.
      files:
        ~w(lib native/*/Cargo.toml native/*/src native/*/model native/*/build.rs Cargo.toml Cargo.lock) ++
          ~w(mix.exs README.md CHANGELOG.md LICENSE .formatter.exs),
      links: %{}
    ]
  end

  defp docs do
    [
      main: "readme",
      extras: ["README.md" | @guides] ++ @about,
      # Pages without a group come before those with one.
      groups_for_extras: [Guides: @guides, "About the project": @about],
      assets: %{"bench/chart" => "bench/chart"},
      groups_for_modules: [
        "Run and stream": [Exile, Exile.Result, Exile.Sigil, Exile.Stream, Exile.Stream.Sink],
        "Talk and control": [Exile.Process],
        Errors: [Exile.Process.Error, Exile.Stream.AbnormalExit],
        "Mix tasks": [Mix.Tasks.Compile.Exile]
      ],
      # Structs whose fields are private.
      skip_undefined_reference_warnings_on: ["Exile.Process", "Exile.Stream"],
      source_ref: "v#{@version}"
    ]
  end
end
