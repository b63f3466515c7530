[
  inputs: ["{mix,.formatter}.exs", "{bench,config,demo,lib,script,test}/**/*.{ex,exs}"]
]
