defmodule ExileTest do
  use Exile.Case

  doctest Exile
end
