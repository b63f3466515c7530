defmodule Exile.ProcessDocTest do
  use Exile.Case

  doctest Exile.Process
end
